# SPDX-License-Identifier: Apache-2.0
"""``tradeoff``: rounds a model's weights under every choice, and plans and bounds each layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from padmarlin.convert import Progress
from padmarlin.convert.refuse import refusing
from padmarlin.errors import check_choice, check_group_size, check_int, refusal
from padmarlin.models import LinearLayer, Model, Quantization, read_model
from padmarlin.models.cuts import plan_layer
from padmarlin.partition import groups_touched
from padmarlin.plan import plan
from padmarlin.tradeoff.gpus import GPUS, Gpu, limit_us
from padmarlin.tradeoff.rounding import Sums
from padmarlin.tradeoff.table import MS, Choice, Entry, Sample, Total, TradeoffTable
from padmarlin.tradeoff.weights import SEED, CheckpointWeights, random_pieces

# Rows that are rounded of every matrix. Real rows differ from each other: 1024 keep a model of 72B
# to minutes. Random ones are all alike: 64 rows of 8192 weights give the error to 0.2 % of itself.
CHECKPOINT_ROWS = 1024
RANDOM_ROWS = 64
_MAX_TP = 1024
_SCALE_BYTES = 2


def tradeoff(
    path: str | os.PathLike[str],
    *,
    tp: int,
    bits: Sequence[int] = (4, 8),
    group_sizes: Sequence[int] = (32, 64, 128),
    gpu: str = "h200",
    rows: int | None = None,
    progress: Progress | None = None,
) -> TradeoffTable:
    """What each choice of bits and group size means for a model that is not quantized yet.

    Args:
        path: a folder with fp16, bf16 or fp32 safetensors, or a bare config.json: then the errors
            are those of normally distributed weights, and the table says so.
        tp: the tensor-parallel size.
        bits, group_sizes: the choices; every combination is one. Bits are 4 or 8, a group size of
            -1 is one group per column.
        gpu: whose rates the limits are of: a key of `GPUS`.
        rows: output rows of every matrix that are rounded; 0: all. Default: 1024; random model: 64.
        progress: told of the bytes that are read from a checkpoint.

    Raises ValueError for a model that cannot be read, TypeError or ValueError for the arguments.
    """
    tp = check_int("tradeoff", "tp", tp, 1)
    if tp > _MAX_TP:
        raise ValueError(refusal("tradeoff", "tp", tp, f"at most {_MAX_TP}"))
    check_choice("tradeoff", "gpu", gpu, tuple(GPUS))
    if rows is not None:
        rows = check_int("tradeoff", "rows", rows, 0)
    choices = _choices(bits, group_sizes)
    with refusing("tradeoff"):
        model = _model(path)
        sums, sample = _rounded(model, choices, rows, progress)
    layers = list(sums)
    entries = tuple(
        _entry(layer, choice, tp, GPUS[gpu], sums[layer].relative(choice))
        for layer in layers
        for choice in choices
    )
    whole = Sums()
    for layer_sums in sums.values():
        whole.include(layer_sums)
    totals = tuple(_total(choice, entries, whole) for choice in choices)
    return TradeoffTable(
        model, tp, gpu, GPUS[gpu], sample, choices, entries, totals, _notes(model, entries)
    )


def _choices(bits: Any, group_sizes: Any) -> tuple[Choice, ...]:
    for name, values in (("bits", bits), ("group_sizes", group_sizes)):
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise TypeError(refusal("tradeoff", name, repr(values), "a sequence of integers"))
    for value in bits:
        check_choice("tradeoff", "bits", value, (4, 8))
    sizes = [check_group_size("tradeoff", value) for value in group_sizes]
    return tuple(dict.fromkeys(Choice(*choice) for choice in product(bits, sizes)))


def _model(path: str | os.PathLike[str]) -> Model:
    model = read_model(path)
    if all(kind is None for _, kind in model.layers):
        expected = "one with linear layers to quantize"
        raise ValueError(refusal("tradeoff", "path", model.path, expected))
    return model


def _rounded(
    model: Model, choices: tuple[Choice, ...], rows: int | None, progress: Progress | None
) -> tuple[dict[LinearLayer, Sums], Sample]:
    """The sums of squares of every layer to be quantized."""
    layers = [layer for layer, kind in model.layers if kind is not None]
    folder = Path(model.path)
    is_checkpoint = folder.is_dir() and any(folder.glob("*.safetensors"))
    if rows is None:
        rows = CHECKPOINT_ROWS if is_checkpoint else RANDOM_ROWS
    found: dict[LinearLayer, Sums] = {}
    stored = CheckpointWeights(folder, rows) if is_checkpoint else None
    if stored is not None and progress is not None:
        progress.start(sum(stored.sampled_bytes(layer) for layer in layers))
    for layer in layers:
        sums = found[layer] = Sums()
        pieces = random_pieces(layer, rows) if stored is None else stored.pieces(layer)
        for weights, stands_for in pieces:
            sums.add(weights, choices, stands_for)
            if stored is not None and progress is not None:
                progress.advance(layer.role, weights.nbytes)
    complete = stored is not None and stored.complete
    return found, Sample("checkpoint" if is_checkpoint else "random", rows, SEED, complete)


def _entry(layer: LinearLayer, choice: Choice, tp: int, gpu: Gpu, error: float) -> Entry:
    cut = plan_layer(layer, Quantization(bits=choice.bits, group_size=choice.group_size), tp)
    if cut.problem:
        return Entry(layer, choice, error, 0, 0, 0, 0.0, False, {}, cut.problem)
    assert cut.padmarlin is not None
    size = _rank_bytes(layer, choice, tp, cut.n)
    limits = {m: limit_us(gpu, m, cut.k, cut.n, size) for m in MS}
    stored = cut.padmarlin
    return Entry(
        layer, choice, error, cut.k, cut.n, size, stored.overhead, stored.straddles, limits, ""
    )


def _rank_bytes(layer: LinearLayer, choice: Choice, tp: int, n: int) -> int:
    """Codes and scales of the rank that has most of them. The table of scale rows, 4 bytes for
    every 16 rows, is not counted."""
    ranks = tp if layer.axis == "k" else 1
    planned = plan(layer.k, n, bits=choice.bits, group_size=choice.group_size, tp=ranks)

    def stored(k: int, k_start: int, padded_k: int, padded_n: int) -> int:
        first, last = groups_touched(k, choice.group_size, k_start)
        codes = padded_k * padded_n * choice.bits // 8
        return codes + (last - first + 1) * padded_n * _SCALE_BYTES

    return max(stored(r.k, r.k_start, r.padded_k, r.padded_n) for r in planned.ranks)


def _total(choice: Choice, entries: tuple[Entry, ...], whole: Sums) -> Total:
    own = [entry for entry in entries if entry.choice == choice]
    return Total(
        choice,
        whole.relative(choice),
        sum(entry.rank_bytes * entry.layer.count for entry in own),
        tuple(entry.layer.pattern for entry in own if entry.straddles),
    )


def _notes(model: Model, entries: tuple[Entry, ...]) -> tuple[str, ...]:
    notes = list(model.notes)
    common = model.scheme.common
    if common.source != "assumed":
        notes.append(f"{common.source} is that of a quantized model: its settings are not used")
    kept = [layer.pattern for layer, kind in model.layers if kind is None]
    if kept:
        notes.append(f"not quantized, so not counted: {', '.join(kept)}")
    problems = {entry.layer.pattern: entry.problem for entry in entries if entry.problem}
    notes += [f"{name} is not counted in bytes: {why}" for name, why in problems.items()]
    if any(entry.layer.experts for entry in entries):
        notes.append("limits of experts are those of one expert that gets all M rows")
    return tuple(notes)
