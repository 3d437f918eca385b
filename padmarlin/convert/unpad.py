# SPDX-License-Identifier: Apache-2.0
"""``unpad_checkpoint``: takes a padding back, bit for bit.

Only names and sizes are needed for it, so that it also works on a padded model that has been
quantized since: what was padded then stands at the ends of the new tensors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from padmarlin.convert.axis import Array, cutting_source
from padmarlin.convert.blocks import ModulePattern
from padmarlin.convert.coding import Codings
from padmarlin.convert.filling import refilled
from padmarlin.convert.job import Job, Progress, run
from padmarlin.convert.jsontext import remove_member
from padmarlin.convert.layer import Edit, Layer
from padmarlin.convert.record import (
    CONFIG_KEY,
    RECORD,
    PaddedModules,
    PaddedSize,
    PaddingRecord,
    read_record,
)
from padmarlin.convert.refuse import refuse, refusing
from padmarlin.convert.stored import Checkpoint
from padmarlin.convert.texts import changed_indexes, changed_sizes, read_text


@dataclass(frozen=True)
class UnpaddingReport:
    """What an unpadding did."""

    sizes: tuple[PaddedSize, ...]
    layers: int
    bytes_before: int
    bytes_after: int


def unpad_checkpoint(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    checksum: bool = False,
    progress: Progress | None = None,
) -> UnpaddingReport:
    """Writes the checkpoint that `pad_checkpoint` padded, or what a quantizer made of it, without
    the padding. The record is padmarlin_padding.json, or what config.json has of it.

    Args:
        source: the folder of a padded checkpoint.
        target: where to: a folder that is empty, not there yet, or this call's unfinished work.
        checksum: verify the source's SHA256SUMS, if it has one, and write the target's.
        progress: is told how far it is.

    Raises:
        ValueError: a checkpoint without a record, or that is not as the record says; one that is
            damaged; a target that holds something else; too little room on the disk.
    """
    with refusing("unpad"):
        checkpoint = Checkpoint(Path(os.fsdecode(source)))
        config_text, config = read_text(checkpoint.folder / "config.json")
        record = read_record(checkpoint.folder, config)
        if record is None:
            got = f"neither {RECORD} nor {CONFIG_KEY!r} in config.json in {checkpoint.folder}"
            remedy = f"copy {RECORD} there from the checkpoint that 'pad' wrote"
            refuse("IN", got, "the record of a padding", remedy)
        edits, layers = _edits(checkpoint, record)
        text = remove_member(config_text, CONFIG_KEY)
        changes = [(size.path, size.padded, size.original) for size in record.sizes]
        texts = changed_indexes(checkpoint, edits)
        texts |= {"config.json": changed_sizes(text, changes)}
        job = Job(
            "unpad",
            {},
            checkpoint,
            Path(os.fsdecode(target)),
            edits,
            texts,
            frozenset({RECORD}),
            checksum,
        )
        run(job, progress)
    before = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    after = sum(shard.data_bytes for shard in job.shards)
    return UnpaddingReport(record.sizes, layers, before, after)


def _edits(checkpoint: Checkpoint, record: PaddingRecord) -> tuple[dict[str, Edit], int]:
    codings, modules = Codings(checkpoint.folder), checkpoint.modules()
    edits: dict[str, Edit] = {}
    layers = 0
    for grown in record.modules:
        pattern = ModulePattern(grown.name, grown.axis, grown.parts, grown.padded, 0)
        names = [name for name, _ in pattern.matches(modules)]
        if not names:
            got = f"no layer {grown.name} in {checkpoint.folder}"
            refuse("IN", got, "those that the record names", "check that they belong together")
        if grown.padded == grown.original:
            continue
        for name in names:
            tensors = modules[name]
            k = grown.padded if grown.axis == "k" else None
            layer = Layer(name, tensors, codings.of(name, tensors), k)
            edits |= _cut(layer, grown, record.fillings)
            layers += 1
    return edits, layers


def _cut(layer: Layer, grown: PaddedModules, fillings: Mapping[str, str]) -> dict[str, Edit]:
    padded = grown.parts * grown.padded
    found = layer.k if grown.axis == "k" else layer.n
    if found != padded:
        remedy = "check that the record belongs to these files"
        got = f"{grown.axis} = {found}"
        refuse(f"layer {layer.name!r}", got, f"{padded} as the record says", remedy)
    axis = grown.axis
    if axis == "k":
        _check_groups(layer, grown)
    source = cutting_source(grown.original, grown.padded, grown.parts)
    edits = layer.edits(axis, source)
    for suffix, place in layer.places.items():
        name = f"{layer.name}.{suffix}"
        if name in fillings and place.packed == axis:
            edits[name] = Edit(
                edits[name].shape,
                _refilling(
                    edits[name].compute,
                    dim=place.dims[axis],
                    coding=layer.coding,
                    count=len(source),
                    is_zeros=place.kind == "zeros",
                    text=fillings[name],
                ),
            )
    return edits


def _refilling(compute: Callable[[], Array], **arguments: Any) -> Callable[[], Array]:
    return lambda: refilled(compute(), **arguments)


def _check_groups(layer: Layer, grown: PaddedModules) -> None:
    """Refuses rows whose groups would have no number any more: an act-order quantization of the
    padded model may have put rows of the padding among the others."""
    groups = layer.row_groups()
    if groups is None:
        return
    count = layer.coding.groups(grown.original)
    wrong = np.flatnonzero(groups[: grown.original] >= count)
    if len(wrong):
        got = f"row {wrong[0]} in group {groups[wrong[0]]}"
        remedy = (
            "this layer was quantized in act-order after it was padded; quantize with "
            "desc_act=False, or keep the padding"
        )
        refuse(f"layer {layer.name!r}", got, f"groups below {count} without the padding", remedy)
