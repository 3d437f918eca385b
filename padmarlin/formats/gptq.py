# SPDX-License-Identifier: Apache-2.0
"""GPTQ checkpoints: codes packed along K, zero points along N, groups possibly in act-order.

Two versions differ in the stored zero points: "gptq" (v1) holds them minus one, "gptq_v2" as they
are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from padmarlin.errors import check_choice, check_int
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

# v1 writers subtract one from each zero point by subtracting this from the packed word; a zero
# point of 0 borrows from its neighbour. Adding it to the packed word takes all of that back.
_V1_ONES = {4: 0x11111111, 8: 0x01010101}


def repack_gptq(
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor | None = None,
    g_idx: Tensor | None = None,
    *,
    bits: int = 4,
    group_size: int = 128,
    sym: bool | None = None,
    k: int | None = None,
    checkpoint_format: str = "gptq",
    shard: Shard | None = None,
    k_start: int = 0,
    dtype: torch.dtype | None = None,
) -> PaddedWeight:
    """Repacks a GPTQ weight, whole or one rank's part, into whole tiles.

    Args:
        qweight: int32 (ceil(k * bits / 32), n): the codes, lowest bits first along k.
        scales: fp16, bf16 or fp32 (groups, n).
        qzeros: int32 (groups, ceil(n * bits / 32)), or None: symmetric.
        g_idx: int32 or int64 (k): the group of each row (act-order), or None. One that equals
            (arange + k_start) // group_size is recognised as no act-order.
        bits: 4 or 8.
        group_size: rows per group, or -1: one group over all of K.
        sym: True refuses zero points other than 2^(bits-1); None takes them as they are.
        k: rows, where packing hides them (no multiple of 32 / bits) and there is no g_idx.
        checkpoint_format: "gptq" (v1: zero points stored minus one) or "gptq_v2".
        shard: the part to take of the whole matrix's tensors.
        k_start: instead of a shard, the first row's number of one rank's own tensors; `scales`
            and `qzeros` then hold every group that those rows touch. With act-order `g_idx` still
            counts groups over the whole matrix, and the tables are whole.
        dtype: torch.float16 or torch.bfloat16; None: the scales' dtype, fp16 if that is fp32.

    Returns:
        The weight on the inputs' device; nothing of it shares memory with them.

    Raises:
        TypeError, ValueError: tensors that contradict each other or the arguments; a scale that
            `dtype` cannot hold; a size that the shard's world_size does not divide.
    """
    function = "repack_gptq"
    group_size = check_coding(function, bits, group_size, sym)
    check_choice(function, "checkpoint_format", checkpoint_format, ("gptq", "gptq_v2"))
    qweight = check_tensor(function, "qweight", qweight, (torch.int32,), 2)
    scales = check_tensor(function, "scales", scales, SCALE_DTYPES, 2, qweight.device)
    k, (groups, n) = _rows(qweight, g_idx, k, bits), scales.shape
    check_shape(
        function,
        "qweight",
        qweight,
        div_up(k * bits, 32),
        n,
        f"(ceil(k * bits / 32), columns of scales) for k = {k}, bits = {bits}",
        "check bits, and pass k=... where K is no multiple of 32 / bits",
    )
    if qzeros is not None:
        qzeros = check_words(
            function,
            "qzeros",
            qzeros,
            qweight.device,
            (groups, div_up(n * bits, 32)),
            f"(rows of scales, ceil(n * bits / 32)) for n = {n}, bits = {bits}",
            "check bits, and pass the tensors of one layer together",
        )
    layer = gptq_layer(
        qweight,
        scales,
        qzeros,
        g_idx,
        bits=bits,
        group_size=group_size,
        sym=sym,
        checkpoint_format=checkpoint_format,
    )
    return repack(layer, Cut.of(function, k, n, shard, k_start), dtype)


def gptq_layer(
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor | None,
    g_idx: Tensor | None,
    *,
    bits: int,
    group_size: int,
    sym: bool | None,
    checkpoint_format: str,
) -> Layer:
    """A layer of tensors whose dtypes and shapes have been checked."""
    if qzeros is not None:
        qzeros = plain_zeros(qzeros, bits, checkpoint_format)
    return Layer(
        function="repack_gptq",
        packing=Packing.GPTQ,
        words=qweight,
        scales=scales,
        zeros=qzeros,
        g_idx=g_idx,
        bits=bits,
        group_size=group_size,
        sym=sym,
        zeros_remedy="pass sym=False or None, or check checkpoint_format",
    )


def plain_zeros(qzeros: Tensor, bits: int, checkpoint_format: str) -> Tensor:
    """The words of zero points as they are, of which the low 32 bits count."""
    if checkpoint_format != "gptq":
        return qzeros
    # In 64 bits, so that the carry out of the highest code is lost as it should be.
    return qzeros.to(torch.int64) + _V1_ONES[bits]


def _rows(qweight: Tensor, g_idx: Tensor | None, k: int | None, bits: int) -> int:
    """k as given, or as g_idx or else whole words of qweight say."""
    if k is not None:
        return check_int("repack_gptq", "k", k, 1)
    if isinstance(g_idx, Tensor) and g_idx.dim() == 1:
        return g_idx.numel()
    return qweight.shape[0] * 32 // bits
