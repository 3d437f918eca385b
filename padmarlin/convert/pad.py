# SPDX-License-Identifier: Apache-2.0
"""``pad_checkpoint``: MLPs wider by weights that dequantize to 0, so that stock engines can cut
them and the model computes exactly what it did.

The new columns of gate and up, and their biases, are 0; so are the new rows of down. What stands
between them is multiplied by those rows: whatever it is, as long as it is a number, it adds 0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm
from pathlib import Path

from padmarlin import __version__
from padmarlin.convert.axis import padding_source
from padmarlin.convert.blocks import ModulePattern, SizeKey, find_blocks, sharing_tensors
from padmarlin.convert.coding import Codings
from padmarlin.convert.filling import fillings
from padmarlin.convert.job import Job, Progress, files_below, run
from padmarlin.convert.jsontext import append_member
from padmarlin.convert.layer import Edit, Layer
from padmarlin.convert.record import (
    CONFIG_KEY,
    RECORD,
    PaddedModules,
    PaddedSize,
    PaddingRecord,
    read_record,
)
from padmarlin.convert.refuse import ConversionError, refuse, refusing
from padmarlin.convert.stored import Checkpoint, read_index
from padmarlin.convert.texts import changed_indexes, changed_sizes, read_text
from padmarlin.errors import check_int
from padmarlin.models import Model, padded_intermediate_size, read_model
from padmarlin.plan import MIN_THREAD_K, plan

_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")


@dataclass(frozen=True)
class PaddingReport:
    """What a padding did."""

    sizes: tuple[PaddedSize, ...]
    layers: int
    bytes_before: int
    bytes_after: int
    left: tuple[str, ...]  # what was not padded, and why


def pad_checkpoint(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    tp: int,
    multiple: int | None = None,
    group_size: int | None = None,
    checksum: bool = False,
    progress: Progress | None = None,
) -> PaddingReport:
    """Writes a checkpoint whose MLPs every strict engine can cut over `tp` ranks.

    Args:
        source: the folder of a checkpoint: GPTQ, AWQ, compressed-tensors, or fp16, bf16, fp32.
        target: where to: a folder that is empty, not there yet, or this call's unfinished work.
        tp: the number of ranks; every divisor of it works as well.
        multiple: each rank's share of the size is a multiple of this (128, the tile of strict
            Marlin kernels), and of the group size.
        group_size: of a quantization to come, where the checkpoint is not quantized; 128.
        checksum: verify the source's SHA256SUMS, if it has one, and write the target's.
        progress: is told how far it is.

    Raises:
        ValueError: a checkpoint that is damaged, padded already or of another format; a target
            that holds something else; too little room on the disk.
    """
    with refusing("pad"):
        tp = check_int("pad", "tp", tp, 1)
        tile = check_int("pad", "multiple", multiple, 1) if multiple is not None else MIN_THREAD_K
        checkpoint = Checkpoint(Path(os.fsdecode(source)))
        config_text, config = read_text(checkpoint.folder / "config.json")
        if read_record(checkpoint.folder, config) is not None:
            refuse("IN", "a checkpoint that is padded already", "one that is not", "unpad it first")
        model = read_model(checkpoint.folder, group_size=group_size)
        padder = _Padder(checkpoint, model, tp, tile, group_size)
        for key in find_blocks(model, checkpoint, config):
            padder.pad(key)
        padder.check_any(model)
        left = [*_uncut_attention(model, tp), *_other_weights(checkpoint, padder.edits)]
        record = padder.record(left)
        text = changed_sizes(config_text, [(s.path, s.original, s.padded) for s in record.sizes])
        texts = changed_indexes(checkpoint, padder.edits)
        texts |= {
            RECORD: record.text(),
            "config.json": append_member(text, CONFIG_KEY, record.for_config()),
        }
        options = {"tp": tp, "multiple": tile, "group_size": group_size}
        job = Job(
            "pad",
            options,
            checkpoint,
            Path(os.fsdecode(target)),
            padder.edits,
            texts,
            checksum=checksum,
        )
        run(job, progress)
    before = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    after = sum(shard.data_bytes for shard in job.shards)
    return PaddingReport(record.sizes, padder.layers, before, after, record.left)


class _Padder:
    """Collects what is to be done to every tensor."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: Model,
        tp: int,
        multiple: int,
        group_size: int | None,
    ) -> None:
        self.edits: dict[str, Edit] = {}
        self.layers = 0
        self._checkpoint, self._tp, self._multiple = checkpoint, tp, multiple
        self._stated_group = group_size
        self._assumed_group = model.scheme.common.group_size
        self._codings = Codings(checkpoint.folder)
        self._modules = checkpoint.modules()
        self._sizes: list[PaddedSize] = []
        self._patterns: list[PaddedModules] = []
        self._left: list[str] = []
        self._fillings: dict[str, str] = {}

    def pad(self, key: SizeKey) -> None:
        """All MLPs of one key, or none of them."""
        for _, family in key.families:
            sharing = sharing_tensors(family, self._checkpoint)
            if sharing:
                self._left.append(
                    f"{key.label} = {key.size} stays: {sharing[0].label} has that size too, and "
                    "its result depends on it (a norm over the padded axis is not lossless)"
                )
                return
        try:
            layers = [
                (pattern, factor, self._layer(name, pattern))
                for factor, family in key.families
                for pattern in family.patterns
                for name, _ in pattern.matches(self._modules)
            ]
        except _UnknownFormat as error:
            self._left.append(f"{key.label} = {key.size} stays: {error}")
            return
        if self._stated_group is not None and any(
            layer.coding.method != "plain" for _, _, layer in layers
        ):
            remedy = "leave the option out: the files say their group size"
            refuse("group_size", self._stated_group, "none for a quantized checkpoint", remedy)
        groups = {
            self._assumed_group if layer.coding.method == "plain" else layer.coding.group_size
            for pattern, _, layer in layers
            if pattern.axis == "k"
        } - {-1}
        padded = padded_intermediate_size(
            key.size,
            group_size=lcm(*groups) if groups else -1,
            tp=self._tp,
            multiple=self._multiple,
        )
        self._sizes += [PaddedSize(path, key.size, padded) for path in key.paths]
        for factor, family in key.families:
            for pattern in family.patterns:
                self._patterns.append(
                    PaddedModules(
                        pattern.name, pattern.axis, pattern.parts, pattern.size, factor * padded
                    )
                )
        for pattern, factor, layer in layers:
            self._pad_layer(layer, pattern, factor * padded)

    def check_any(self, model: Model) -> None:
        """Refuses a model in which nothing could be padded."""
        if not self._sizes:
            why = self._left[0] if self._left else f"no MLP in {model.path}"
            refuse("IN", why, "an MLP that can be padded without loss")

    def record(self, more_left: list[str]) -> PaddingRecord:
        return PaddingRecord(
            __version__,
            self._tp,
            self._multiple,
            tuple(self._sizes),
            tuple(self._patterns),
            (*self._left, *more_left),
            self._fillings,
        )

    def _layer(self, name: str, pattern: ModulePattern) -> Layer:
        tensors = self._modules[name]
        for tensor in tensors.values():
            if tensor.name in self._checkpoint.twice:
                first, second = self._checkpoint.twice[tensor.name]
                got = f"it in {first.name} and {second.name}"
                refuse(f"tensor {tensor.name!r}", got, "it once", "remove one of the files")
        try:
            coding = self._codings.of(name, tensors)
        except ConversionError as error:
            raise _UnknownFormat(str(error).removeprefix(": ")) from error
        k = pattern.size if pattern.axis == "k" else pattern.other
        layer = Layer(name, tensors, coding, k)
        expected = pattern.other if pattern.axis == "k" else pattern.parts * pattern.size
        if layer.n != expected:
            remedy = "check that config.json belongs to these files"
            refuse(f"layer {name!r}", f"n = {layer.n}", f"{expected} as config.json says", remedy)
        return layer

    def _pad_layer(self, layer: Layer, pattern: ModulePattern, padded: int) -> None:
        if padded == pattern.size:
            return
        source = padding_source(pattern.size, padded, pattern.parts)
        self.edits |= layer.edits(pattern.axis, source)
        self.layers += 1
        self._fillings |= fillings(layer, pattern.axis)


class _UnknownFormat(Exception):
    """Why a layer cannot be padded."""


def _other_weights(checkpoint: Checkpoint, edits: Mapping[str, Edit]) -> list[str]:
    """Files that may hold the same weights once more, and are copied as they are."""
    names = [name for name in files_below(checkpoint.folder) if name.endswith(_OTHER_WEIGHTS)]
    indexed = {file for path in checkpoint.indexes() for file in read_index(path).values()}
    if indexed:
        names += [
            file.path.name
            for file in checkpoint.files
            if file.path.name not in indexed and not edits.keys() & {t.name for t in file.tensors}
        ]
    return [f"{name} stays: weights in it are not padded" for name in sorted(names)]


def _uncut_attention(model: Model, tp: int) -> list[str]:
    """What strict engines refuse at this TP and padding does not mend."""
    found = []
    for layer, kind in model.layers:
        if layer.axis != "k" or layer.role != "o" or kind is None:
            continue
        rows = layer.k_per_rank(tp)
        planned = plan(layer.k, layer.n, group_size=kind.group_size, tp=tp) if rows else None
        if planned is not None and planned.strict_marlin:
            continue
        what = "strict Marlin refuses it" if rows else "nobody can cut it"
        found.append(
            f"{layer.pattern} stays, where {what} at TP={tp}: its {layer.k} rows are attention "
            "heads, and more heads would be another model"
        )
    return found
