# SPDX-License-Identifier: Apache-2.0
"""``fold_checkpoint``: act-order taken out of down_proj for good.

Rows of down may stand in any order as long as the columns of gate and up, which make its input,
stand in the same: so they are sorted by group, and nothing but the order of equal numbers changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from padmarlin.checkpoint.compressed_scheme import REORDERING
from padmarlin.checkpoint.settings import CONFIG, OWN_FILE, PLACES
from padmarlin.convert.axis import Source
from padmarlin.convert.blocks import Family, ModulePattern, mlp_families, sharing_tensors
from padmarlin.convert.coding import Codings
from padmarlin.convert.job import Job, Progress, run
from padmarlin.convert.jsontext import Path as KeyPath
from padmarlin.convert.jsontext import replace, value_at
from padmarlin.convert.layer import Edit, Layer
from padmarlin.convert.record import PaddingRecord, read_record
from padmarlin.convert.refuse import refuse, refusing
from padmarlin.convert.stored import Checkpoint
from padmarlin.convert.texts import changed_indexes, read_text
from padmarlin.models import read_model


@dataclass(frozen=True)
class FoldingReport:
    """What a folding did."""

    folded: int  # layers whose rows were sorted
    act_order: bool  # whether the checkpoint still says that it has act-order
    kept: tuple[str, ...]  # the layers that still have it
    left: tuple[str, ...]  # output layers that could not be folded, and why


def fold_checkpoint(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    checksum: bool = False,
    progress: Progress | None = None,
) -> FoldingReport:
    """Writes a checkpoint whose MLPs' output layers have their rows in the order of their groups.

    Args:
        source: the folder of a GPTQ or compressed-tensors checkpoint with act-order.
        target: where to: a folder that is empty, not there yet, or this call's unfinished work.
        checksum: verify the source's SHA256SUMS, if it has one, and write the target's.
        progress: is told how far it is.

    Raises:
        ValueError: a checkpoint without act-order to fold; one that is damaged; a target that
            holds something else; too little room on the disk.
    """
    with refusing("fold"):
        checkpoint = Checkpoint(Path(os.fsdecode(source)))
        _, config = read_text(checkpoint.folder / "config.json")
        folder = _Folder(checkpoint, read_record(checkpoint.folder, config))
        for family in mlp_families(read_model(checkpoint.folder), checkpoint):
            folder.fold(family)
        kept = folder.kept()
        texts = {} if kept else _without_act_order(checkpoint.folder)
        if not folder.folded and not texts:
            why = folder.left[0] if folder.left else "no output layer of an MLP in act-order"
            refuse("IN", why, "act-order that can be folded", "use the checkpoint as it is")
        edits: dict[str, Edit | None] = {**folder.edits}
        if not kept:
            # compressed-tensors has this tensor only where there is act-order.
            edits |= dict.fromkeys(
                (name for name in checkpoint.tensors if name.endswith(".weight_g_idx")), None
            )
        texts |= changed_indexes(checkpoint, edits)
        target_folder = Path(os.fsdecode(target))
        run(Job("fold", {}, checkpoint, target_folder, edits, texts, checksum=checksum), progress)
    return FoldingReport(folder.folded, bool(kept), tuple(kept), tuple(folder.left))


class _Folder:
    """Collects what is to be done to every tensor."""

    def __init__(self, checkpoint: Checkpoint, record: PaddingRecord | None) -> None:
        self.edits: dict[str, Edit] = {}
        self.left: list[str] = []
        self._done: set[str] = set()
        self._checkpoint, self._record = checkpoint, record
        self._codings, self._modules = Codings(checkpoint.folder), checkpoint.modules()

    @property
    def folded(self) -> int:
        return len(self._done)

    def fold(self, family: Family) -> None:
        sharing = sharing_tensors(family, self._checkpoint)
        for name, numbers in family.output.matches(self._modules):
            if not self._group_index_of(name):
                continue
            layer = self._layer(name, family.size)
            order = _order(layer)
            if order is None:
                continue
            if sharing:
                self._leave(name, f"{sharing[0].label} is in the same order")
            elif not _is_sorted_whole(layer, order):
                self._leave(name, "its groups are not all of one size")
            elif not self._keeps_padding(name, order):
                self._leave(name, "its padding would no longer stand at the end")
            else:
                self._fold(layer, order, family, numbers)

    def kept(self) -> list[str]:
        """Layers that still have act-order, equal ones of all layers in one name."""
        names = [
            module
            for module in self._modules
            if module not in self._done
            and self._group_index_of(module)
            and _order(self._layer(module)) is not None
        ]
        return sorted({re.sub(r"\.\d+(?=\.)", ".*", name) for name in names})

    def _fold(self, layer: Layer, order: Source, family: Family, numbers: tuple[str, ...]) -> None:
        edits = layer.edits("k", order)
        for pattern in family.patterns[:-1]:
            module = _named(pattern, numbers)
            tensors = self._modules[module]
            parts = np.arange(pattern.parts)[:, None] * pattern.size
            columns = (parts + order).reshape(-1)
            before = Layer(module, tensors, self._codings.of(module, tensors))
            if before.n != len(columns):
                remedy = "check that config.json belongs to these files"
                refuse(f"layer {module!r}", f"n = {before.n}", str(len(columns)), remedy)
            edits |= before.edits("n", columns)
        self.edits |= edits
        self._done.add(layer.name)

    def _leave(self, name: str, why: str) -> None:
        self.left.append(f"{name} keeps its act-order: {why}")

    def _group_index_of(self, module: str) -> bool:
        return any(suffix in self._modules[module] for suffix in ("g_idx", "weight_g_idx"))

    def _layer(self, name: str, k: int | None = None) -> Layer:
        tensors = self._modules[name]
        return Layer(name, tensors, self._codings.of(name, tensors), k)

    def _keeps_padding(self, name: str, order: Source) -> bool:
        for grown in self._record.modules if self._record else ():
            pattern = ModulePattern(grown.name, grown.axis, grown.parts, grown.padded, 0)
            if any(found == name for found, _ in pattern.matches([name])):
                return bool((order[: grown.original] < grown.original).all())
        return True


def _order(layer: Layer) -> Source | None:
    """The rows by group, those of a group as they stood; None: they are in order already."""
    groups = layer.row_groups()
    if groups is None or np.array_equal(groups, layer.coding.group_of(np.arange(layer.k))):
        return None
    return np.argsort(groups, kind="stable")


def _is_sorted_whole(layer: Layer, order: Source) -> bool:
    """Whether the sorted rows are what a checkpoint without a g_idx means."""
    groups = layer.row_groups()
    assert groups is not None
    return np.array_equal(groups[order], layer.coding.group_of(np.arange(layer.k)))


def _named(pattern: ModulePattern, numbers: tuple[str, ...]) -> str:
    return re.sub(r"\{\w+\}", "{}", pattern.name).format(*numbers)


def _without_act_order(folder: Path) -> dict[str, str]:
    """The settings' files, saying that there is no act-order."""
    texts = {}
    for name, starts in ((CONFIG, PLACES), (OWN_FILE, ((),))):
        if not (folder / name).exists():
            continue
        text, values = read_text(folder / name)
        changed = text
        for start in starts:
            for path, value in _act_order_keys(value_at(values, start), start):
                changed = replace(changed, path, value)
        if changed != text:
            texts[name] = changed
    return texts


def _act_order_keys(settings: Any, start: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """(where, what): every place that says that there is act-order, and what it is to say."""
    if not isinstance(settings, Mapping):
        return
    if settings.get("desc_act") is True:
        yield (*start, "desc_act"), False
    for rule in settings.get("dynamic") or {}:
        if value_at(settings, ("dynamic", rule, "desc_act")) is True:
            yield (*start, "dynamic", rule, "desc_act"), False
    for group in settings.get("config_groups") or {}:
        path = ("config_groups", group, "weights", "actorder")
        order = value_at(settings, path)
        if order is True or str(order).lower() in REORDERING:
            yield (*start, *path), None
