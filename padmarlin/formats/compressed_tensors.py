# SPDX-License-Identifier: Apache-2.0
"""compressed-tensors checkpoints of format "pack-quantized": everything has N before K."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from padmarlin.errors import check_int, refusal
from padmarlin.formats.common import (
    SCALE_DTYPES,
    Cut,
    Layer,
    check_coding,
    check_shape,
    check_tensor,
    check_words,
    repack,
)
from padmarlin.layout import div_up
from padmarlin.packing import Packing
from padmarlin.partition import Shard
from padmarlin.weight import PaddedWeight

G_IDX_UNSET = -1
"""compressed-tensors creates weight_g_idx full of it, and leaves it so if nothing is reordered."""


def repack_compressed_tensors(
    weight_packed: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    weight_g_idx: Tensor | None = None,
    *,
    weight_shape: Tensor | Sequence[int],
    bits: int = 4,
    group_size: int = 128,
    sym: bool | None = True,
    shard: Shard | None = None,
    k_start: int = 0,
    dtype: torch.dtype | None = None,
) -> PaddedWeight:
    """Repacks a compressed-tensors weight (format "pack-quantized"), whole or one rank's part.

    Args:
        weight_packed: int32 (n, ceil(k * bits / 32)): the codes, lowest bits first along k.
        weight_scale: fp16, bf16 or fp32 (n, groups); one group if quantized per channel.
        weight_zero_point: int32 (ceil(n * bits / 32), groups), or None: symmetric.
        weight_g_idx: int32 or int64 (k): the group of each row (actorder "group"), or None. One
            that equals (arange + k_start) // group_size is recognised as no act-order; so is one
            of nothing but -1, which compressed-tensors leaves where there is none.
        weight_shape: (n, k) of the tensors given, as a tensor or a sequence.
        bits: 4 or 8.
        group_size: rows per group, or -1: one group over all of K (strategy "channel").
        sym: True refuses zero points other than 2^(bits-1), False wants weight_zero_point; None
            takes what is there.
        shard: the part to take of the whole matrix's tensors.
        k_start: instead of a shard, the first row's number of one rank's own tensors; the scales
            and zero points then hold every group that those rows touch. With act-order
            `weight_g_idx` still counts groups over the whole matrix, and the tables are whole.
        dtype: torch.float16 or torch.bfloat16; None: the scales' dtype, fp16 if that is fp32.

    Returns:
        The weight on the inputs' device; nothing of it shares memory with them.

    Raises:
        TypeError, ValueError: tensors that contradict each other or the arguments; a scale that
            `dtype` cannot hold; a size that the shard's world_size does not divide.
    """
    function = "repack_compressed_tensors"
    group_size = check_coding(function, bits, group_size, sym)
    n, k = _checked_shape(function, weight_shape)
    weight_packed = check_words(
        function,
        "weight_packed",
        weight_packed,
        None,
        (n, div_up(k * bits, 32)),
        f"(n, ceil(k * bits / 32)) for n = {n}, k = {k}, bits = {bits}",
        "check bits; weight_shape is (n, k) of the tensors given, one rank's for one rank's",
    )
    device = weight_packed.device
    weight_scale = check_tensor(function, "weight_scale", weight_scale, SCALE_DTYPES, 2, device)
    groups, remedy = weight_scale.shape[1], "pass the tensors of one layer together"
    meaning = f"(n, groups) for n = {n}"
    check_shape(function, "weight_scale", weight_scale, n, groups, meaning, remedy)
    if weight_zero_point is not None:
        weight_zero_point = check_words(
            function,
            "weight_zero_point",
            weight_zero_point,
            device,
            (div_up(n * bits, 32), groups),
            f"(ceil(n * bits / 32), groups) for n = {n}, bits = {bits}",
            remedy,
        )
    layer = compressed_tensors_layer(
        weight_packed,
        weight_scale,
        weight_zero_point,
        None if _is_unset(weight_g_idx) else weight_g_idx,
        bits=bits,
        group_size=group_size,
        sym=sym,
    )
    return repack(layer, Cut.of(function, k, n, shard, k_start), dtype)


def compressed_tensors_layer(
    weight_packed: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None,
    weight_g_idx: Tensor | None,
    *,
    bits: int,
    group_size: int,
    sym: bool | None,
) -> Layer:
    """A layer of tensors whose dtypes and shapes have been checked."""
    return Layer(
        function="repack_compressed_tensors",
        packing=Packing.COMPRESSED_TENSORS,
        words=weight_packed,
        scales=weight_scale.t(),
        zeros=weight_zero_point,
        g_idx=weight_g_idx,
        bits=bits,
        group_size=group_size,
        sym=sym,
        scales_name="weight_scale",
        zeros_name="weight_zero_point",
        g_idx_name="weight_g_idx",
    )


def _is_unset(weight_g_idx: Any) -> bool:
    """Whether all of it is; empty ones and other types are left to the checks of a g_idx."""
    if not isinstance(weight_g_idx, Tensor) or weight_g_idx.numel() == 0:
        return False
    return bool((weight_g_idx == G_IDX_UNSET).all())


def _checked_shape(function: str, weight_shape: Any) -> tuple[int, int]:
    """(n, k)."""
    sizes = weight_shape
    if isinstance(weight_shape, Tensor):
        sizes = check_tensor(
            function, "weight_shape", weight_shape, (torch.int64, torch.int32), 1
        ).tolist()
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or len(sizes) != 2:
        raise ValueError(refusal(function, "weight_shape", repr(weight_shape), "(n, k)"))
    n, k = (check_int(function, "weight_shape", size, 1) for size in sizes)
    return n, k
