# SPDX-License-Identifier: Apache-2.0
"""AWQ checkpoints of version "gemm": everything is packed along N, in an order of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from padmarlin.errors import refusal
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


def repack_awq(
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor,
    *,
    bits: int = 4,
    group_size: int = 128,
    shard: Shard | None = None,
    k_start: int = 0,
    dtype: torch.dtype | None = None,
) -> PaddedWeight:
    """Repacks an AWQ weight (version "gemm"), whole or one rank's part, into whole tiles.

    Args:
        qweight: int32 (k, ceil(n / 8)): nibbles 0 to 7 of a word, from the lowest, are columns
            0 2 4 6 1 3 5 7 of eight.
        scales: fp16, bf16 or fp32 (groups, n).
        qzeros: int32 (groups, ceil(n / 8)): the zero points, in the same order.
        bits: 4. There is no 8-bit AWQ: no quantizer writes one, so that its order is not defined.
        group_size: rows per group, or -1: one group over all of K.
        shard: the part to take of the whole matrix's tensors.
        k_start: instead of a shard, the first row's number of one rank's own tensors; `scales`
            and `qzeros` then hold every group that those rows touch.
        dtype: torch.float16 or torch.bfloat16; None: the scales' dtype, fp16 if that is fp32.

    Returns:
        The weight on the inputs' device; nothing of it shares memory with them.

    Raises:
        TypeError, ValueError: tensors that contradict each other or the arguments; a scale that
            `dtype` cannot hold; a size that the shard's world_size does not divide.
    """
    function = "repack_awq"
    group_size = check_coding(function, bits, group_size, None)
    if bits != 4:
        remedy = "quantize to 4 bits, or to 8 with GPTQ or compressed-tensors"
        raise ValueError(refusal(function, "bits", bits, "4: AWQ defines no other packing", remedy))
    qweight = check_tensor(function, "qweight", qweight, (torch.int32,), 2)
    scales = check_tensor(function, "scales", scales, SCALE_DTYPES, 2, qweight.device)
    k, (groups, n) = qweight.shape[0], scales.shape
    words, meaning = div_up(n, 8), f"ceil(n / 8)) for n = {n}"
    remedy = "check that the version is gemm: others pack in other orders"
    check_shape(function, "qweight", qweight, k, words, f"(k, {meaning}", remedy)
    remedy = "pass the tensors of one layer together"
    shape, meaning = (groups, words), f"(rows of scales, {meaning}"
    qzeros = check_words(function, "qzeros", qzeros, qweight.device, shape, meaning, remedy)
    layer = awq_layer(qweight, scales, qzeros, group_size=group_size, sym=None)
    return repack(layer, Cut.of(function, k, n, shard, k_start), dtype)


def awq_layer(
    qweight: Tensor, scales: Tensor, qzeros: Tensor, *, group_size: int, sym: bool | None
) -> Layer:
    """A layer of tensors whose dtypes and shapes have been checked."""
    return Layer(
        function="repack_awq",
        packing=Packing.AWQ,
        words=qweight,
        scales=scales,
        zeros=qzeros,
        g_idx=None,
        bits=4,
        group_size=group_size,
        sym=sym,
        zeros_remedy="check zero_point: false says that there are no zero points",
    )
