# SPDX-License-Identifier: Apache-2.0
"""``verify_checkpoint``: what is compared with what, and the ranks that do it."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

import padmarlin
from padmarlin.checkpoint.repacked import Repacked
from padmarlin.errors import check_int, refusal
from padmarlin.shards import cut_axis, why_whole
from padmarlin.verify.extension import Axis, Extended, halves
from padmarlin.verify.files import refuse
from padmarlin.verify.folding import Orders, fold_orders
from padmarlin.verify.independent import Checkpoint, Layer
from padmarlin.verify.logits import compare_logits
from padmarlin.verify.others import (
    compare_configs,
    compare_sizes,
    compare_tensors,
    plain_layers,
)
from padmarlin.verify.rank import LayerTask, Subject
from padmarlin.verify.ranks import Group, choose_backend, run_ranks
from padmarlin.verify.report import LayerResult, Report
from padmarlin.weight import PaddedWeight

_DTYPES = {"float16": "F16", "bfloat16": "BF16"}


class Progress(Protocol):
    """Is told how many layers there are, and of each that is done."""

    def start(self, layers: int) -> None: ...

    def advance(self, result: LayerResult) -> None: ...


class _Silent:
    def start(self, layers: int) -> None:
        pass

    def advance(self, result: LayerResult) -> None:
        pass


def verify_checkpoint(
    checkpoint: str | os.PathLike[str],
    other: str | os.PathLike[str] | None = None,
    *,
    tp: int | None = None,
    layers: str | None = None,
    timeout: float = 600,
    load_weight: Callable[..., PaddedWeight] | None = None,
    dequantize: Callable[[PaddedWeight], Tensor] | None = None,
    gemm: Callable[[Tensor, PaddedWeight], Tensor] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Runs every quantized layer over `tp` processes and holds it against a float64 reference.

    The reference is made of the original tensors by a reader that shares nothing with padmarlin's.
    Each rank loads its part, dequantizes it, which must give the reference's weights bit for bit,
    and multiplies random activations; the ranks' products, added up or joined, must be within what
    rounding allows of the reference's.

    Args:
        checkpoint: the original, A.
        other: B, which is run instead of A and held against A's reference. Either A padded: then
            its stored weights must be A's, extended by exact zeros, all else unchanged, and the
            logits the same (if Transformers is there and the model small). Or A folded: then they
            must be A's in the order that A's group numbers say, all else as for a padded one. Or A
            repacked: then it must be what a fresh repack of A gives.
        tp: how many ranks; None: 2, or as many as B was repacked for.
        layers: only the layers whose names match this pattern of a shell; None: all.
        timeout: seconds without a result after which the ranks have hung.
        load_weight, dequantize, gemm: what is verified; None: padmarlin's.

    Raises:
        ValueError: a checkpoint that is damaged, or no checkpoint.
        RanksFailed: a rank that crashed or hung.
    """
    original, second = _directories(checkpoint, other)
    repacked = None if second is None else Repacked.read(second)
    if Repacked.read(original) is not None:
        remedy = "pass the original first: padmarlin verify ORIGINAL REPACKED"
        refuse("A", f"{original}, which is repacked", "the original checkpoint", remedy)
    tp = _checked_tp(tp, repacked)
    a = Checkpoint(original)
    names = _chosen(a.layers, layers, original)
    subject = Subject(
        second or original,
        load_weight or padmarlin.load_weight,
        dequantize or padmarlin.dequantize,
        gemm or padmarlin.gemm,
    )
    backend = choose_backend(tp)
    found: dict[str, Any] = {"kind": "checkpoint"}
    if second is None:
        tasks = [_task(a.layer(name), tp) for name in names]
    elif repacked is not None:
        tasks, found = _repacked_tasks(a, names, repacked)
    else:
        tasks, found = _derived_tasks(a, Checkpoint(second), names, tp, whole=layers is None)
    if not tasks and second is None:
        refuse("A", f"{original}, which has no quantized layers", "some", "quantize it first")
    progress = progress or _Silent()
    progress.start(len(tasks))
    results = []
    if tasks:
        for result in run_ranks(Group(tp, backend, timeout), tasks, subject):
            progress.advance(result)
            results.append(result)
    if second is not None and repacked is None and layers is None and not found["faults"]:
        fault, note = compare_logits(original, second)
        found["faults"] = (fault,) if fault else ()
        found["notes"] = (note,) if note else ()
    return Report(
        checkpoint=str(original),
        other=None if second is None else str(second),
        tp=tp,
        backend=backend,
        layers=tuple(results),
        **found,
    )


def _directories(checkpoint: Any, other: Any) -> tuple[Path, Path | None]:
    paths: list[Path | None] = []
    for argument, value in (("A", checkpoint), ("B", other)):
        if value is None and argument == "B":
            paths.append(None)
            continue
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError(refusal("verify", argument, type(value).__name__, "a path"))
        path = Path(value)
        if not path.is_dir():
            remedy = "download the checkpoint first: this is a path, not the name of a model"
            refuse(argument, repr(str(path)), "an existing directory", remedy)
        paths.append(path)
    assert paths[0] is not None
    return paths[0], paths[1]


def _checked_tp(tp: int | None, repacked: Repacked | None) -> int:
    if tp is None:
        return 2 if repacked is None else repacked.tp
    tp = check_int("verify", "tp", tp, 1)
    if repacked is not None and tp != repacked.tp:
        refuse("tp", tp, f"{repacked.tp}, as B was repacked", "leave it out")
    return tp


def _chosen(names: list[str], pattern: str | None, directory: Path) -> list[str]:
    if pattern is None:
        return names
    chosen = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not chosen:
        example = f"such as '*{names[0].rpartition('.')[2]}'" if names else "but it has no layers"
        refuse("layers", repr(pattern), f"a pattern of layers in {directory}, {example}")
    return chosen


def _task(layer: Layer, tp: int, **more: Any) -> LayerTask:
    whole = Extended(layer, Axis(layer.k, layer.k), Axis(layer.n, layer.n))
    return _cut(LayerTask(layer.name, whole, None, **more), tp)


def _cut(task: LayerTask, tp: int) -> LayerTask:
    axis = cut_axis(task.name)
    reason = why_whole(axis, task.k, task.n, tp)
    return replace(task, axis=None if reason else axis, not_cut=reason)


def _repacked_tasks(
    a: Checkpoint, names: list[str], b: Repacked
) -> tuple[list[LayerTask], dict[str, Any]]:
    faults = [f"layer {name} is not in B" for name in names if name not in b.layers]
    faults += [f"layer {name} of B is not in A" for name in b.layers if name not in a.layers]
    tasks = []
    for name in names:
        if name in b.layers:
            layer = a.layer(name)
            if b.dtype is not None:
                layer = replace(layer, rounding=_DTYPES[b.dtype])
            task = _task(layer, b.tp, fresh=a.files.directory)
            stored = b.layers[name]
            if stored.axis != task.axis:
                faults.append(f"layer {name} is cut along {stored.axis}, expected {task.axis}")
            else:
                tasks.append(task)
    others = _others_of(b)
    compared = [name for name in a.others if name in b.others] if b.others else []
    if b.others:
        faults += [f"tensor {name} is not in B" for name in a.others if name not in b.others]
        faults += compare_tensors(a, others, compared, Orders())
    notes = () if b.others else ("B holds no tensors but the quantized layers",)
    return tasks, {
        "kind": "repacked",
        "faults": tuple(faults),
        "notes": notes,
        "tensors_compared": len(compared),
    }


def _others_of(b: Repacked) -> Checkpoint:
    """The tensors of a repacked directory by their names; not a checkpoint otherwise."""
    return Checkpoint(b.directory)


def _derived_tasks(
    a: Checkpoint, b: Checkpoint, names: list[str], tp: int, *, whole: bool
) -> tuple[list[LayerTask], dict[str, Any]]:
    """B as A padded, folded, or both; `whole`: compare all else, too."""
    pairs, faults = _pairs(a, b, names)
    # What says in which order a layer's columns stand is beside it, and may not be among `names`.
    blocks = {name.rpartition(".")[0] for name in names}
    beside = [name for name in a.layers if name.rpartition(".")[0] in blocks]
    orders = fold_orders(a, pairs if beside == names else _pairs(a, b, beside)[0])
    tasks, grown = [], {}
    for name, (old, new) in pairs.items():
        rows, columns = Axis(old.k, new.k), Axis(old.n, new.n, halves(name))
        if not (rows.possible and columns.possible):
            faults.append(f"layer {name} is {new.k} x {new.n}, was {old.k} x {old.n}: no padding")
            continue
        if new.dtype != old.dtype:
            faults.append(f"layer {name} has scales of {new.dtype}, had {old.dtype}")
            continue
        grown[name] = rows, columns
        reference = Extended(old, rows, columns, orders.rows.get(name), orders.columns.get(name))
        tasks.append(_cut(LayerTask(name, reference, None, stored=new), tp))
    kind = "folded" if orders.rows else "padded"
    if not whole:
        notes = ("only layers were compared",)
        return tasks, {"kind": kind, "faults": tuple(faults), "notes": notes}
    faults += [f"layer {name} of B is not quantized in A" for name in b.layers if name not in names]
    others = sorted(set(a.others) | set(b.others))
    faults += compare_tensors(a, b, others, orders)
    grown |= plain_layers(a, b, others)
    faults += compare_sizes(grown)
    faults += compare_configs(a, b, set(_sizes(grown)))
    return tasks, {"kind": kind, "faults": tuple(faults), "tensors_compared": len(others)}


def _pairs(
    a: Checkpoint, b: Checkpoint, names: list[str]
) -> tuple[dict[str, tuple[Layer, Layer]], list[str]]:
    """(A's layer, B's) by name, and what is wrong with the other layers of B."""
    pairs, faults = {}, []
    if b.layers and not b.settings:
        refuse("B", f"no quantization settings in {b.files.directory}", "those of its layers")
    for name in names:
        old = a.layer(name)
        if name not in b.layers:
            faults.append(f"layer {name} is not quantized in B")
            continue
        try:
            pairs[name] = old, b.layer(name)
        except ValueError as error:
            faults.append(f"layer {name} of B cannot be read: {error}")
    return pairs, faults


def _sizes(grown: dict[str, tuple[Axis, Axis]]) -> Iterator[tuple[int, int]]:
    """(old, new) of every inner size that grew."""
    for rows, columns in grown.values():
        yield rows.old, rows.new
        yield columns.old // columns.parts, columns.new // columns.parts
