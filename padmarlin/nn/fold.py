# SPDX-License-Identifier: Apache-2.0
"""``load_folded_pair``: act-order taken out of a layer whose input another layer writes.

The rows of the second layer, sorted by group, are cut as if there were no act-order; the columns of
the first are taken in that order. Between the two only functions of single elements may stand.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from padmarlin.checkpoint import load_weight
from padmarlin.checkpoint.bias import load_bias
from padmarlin.checkpoint.load import checked_directory
from padmarlin.checkpoint.reader import CheckpointReader
from padmarlin.checkpoint.repacked import Repacked
from padmarlin.errors import refusal
from padmarlin.nn.group import rank_and_size
from padmarlin.nn.merged import MergedColumnParallelQuantLinear, checked_names
from padmarlin.nn.parallel import RowParallelQuantLinear
from padmarlin.nn.unpacked import Unpacked
from padmarlin.partition import Shard
from padmarlin.weight import PaddedWeight

_FUNCTION = "load_folded_pair"


def load_folded_pair(
    checkpoint_dir: str | os.PathLike[str],
    producers: Sequence[str],
    consumer: str,
    *,
    reduce_results: bool = True,
    process_group: dist.ProcessGroup | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    batch_invariant: bool = False,
) -> tuple[MergedColumnParallelQuantLinear, RowParallelQuantLinear]:
    """gate and up, and down: `producers`, each as wide as `consumer` is high, in one layer.

    Between the two stand only functions of single elements: ``down(silu(gate) * up)``. With
    act-order in `consumer`, its rows are sorted by group, then cut, and the producers write their
    columns in that order: no ``columns`` table, no padding beyond a plain cut's. The order stays
    inside: what goes in and what comes out is as in the checkpoint.

    With act-order every rank reads both layers whole, as its rows lie anywhere in the files
    (``padmarlin fold`` writes a checkpoint where they do not); else only its own part. Where
    nothing can be folded - no act-order, groups that are not all of one size, the output of
    ``padmarlin repack`` - the layers are loaded as they are.
    """
    names = checked_names(_FUNCTION, producers)
    rank, size = rank_and_size(_FUNCTION, process_group)
    common: dict[str, Any] = {"process_group": process_group, "batch_invariant": batch_invariant}
    order, whole = None, None
    if _may_fold(checked_directory(checkpoint_dir), consumer):
        whole = Unpacked.of(load_weight(checkpoint_dir, consumer, device=device, dtype=dtype))
        order = whole.sorted_rows()
    if whole is None or order is None:
        loading: dict[str, Any] = {**common, "device": device, "dtype": dtype}
        return (
            MergedColumnParallelQuantLinear.from_checkpoint(checkpoint_dir, names, **loading),
            RowParallelQuantLinear.from_checkpoint(
                checkpoint_dir, consumer, reduce_results=reduce_results, **loading
            ),
        )
    start, stop = (0, whole.k) if size == 1 else Shard("k", rank, size).bounds(whole.k)
    weight = whole.cut_sorted(start, stop).packed()
    down = RowParallelQuantLinear(
        weight,
        load_bias(checkpoint_dir, consumer, weight),
        reduce_results=reduce_results,
        **common,
    )
    weights, biases = [], []
    for name in names:
        producer = load_weight(checkpoint_dir, name, device=device, dtype=dtype)
        part, bias = _columns_of(checkpoint_dir, name, producer, whole.k, order[start:stop])
        weights.append(part)
        biases.append(bias)
    return MergedColumnParallelQuantLinear(weights, biases, names=names, **common), down


def _may_fold(directory: Path, consumer: str) -> bool:
    """Whether the whole layer has its rows out of order, which every rank must answer alike."""
    if Repacked.read(directory) is not None:
        return False
    reader = CheckpointReader(directory)
    try:
        for name in (f"{consumer}.g_idx", f"{consumer}.weight_g_idx"):
            if name in reader:
                stored = reader.stored(name)
                stored.check(("I32", "I64"), (None,), "(k,)")
                g_idx = stored.read((0, stored.shape[0]))
                return bool((g_idx[1:] < g_idx[:-1]).any())
    finally:
        reader.release()
    return False


def _columns_of(
    checkpoint_dir: str | os.PathLike[str],
    name: str,
    weight: PaddedWeight,
    width: int,
    order: Tensor,
) -> tuple[PaddedWeight, Tensor | None]:
    """The columns `order` of a layer that has `width`, and of its bias."""
    if weight.n != width:
        expected = f"{width}, the rows of the layer that reads it"
        raise ValueError(refusal(_FUNCTION, name, f"n = {weight.n}", expected))
    bias = load_bias(checkpoint_dir, name, weight)
    part = Unpacked.of(weight).take_columns(order).packed()
    return part, None if bias is None else bias.index_select(0, order)
