# SPDX-License-Identifier: Apache-2.0
"""GPTQ checkpoints: codes packed along K, zero points along N, groups possibly in act-order.

Two versions differ in the stored zero points: "gptq" (v1) holds them minus one, "gptq_v2" as they
are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from padmarlin.errors import check_choice, check_group_size, check_int
from padmarlin.formats.common import (
    SCALE_DTYPES,
    Cut,
    assemble,
    check_shape,
    check_tensor,
    drop_if_symmetric,
    table_rows,
    take_scales,
    weight_dtype,
)
from padmarlin.layout import div_up
from padmarlin.partition import Shard, build_row_map, check_g_idx, is_in_order
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
    check_choice(function, "bits", bits, (4, 8))
    check_choice(function, "checkpoint_format", checkpoint_format, ("gptq", "gptq_v2"))
    group_size = check_group_size(function, group_size)
    qweight = check_tensor(function, "qweight", qweight, (torch.int32,), 2)
    scales = check_tensor(function, "scales", scales, SCALE_DTYPES, 2, qweight.device)
    k, n = _rows(qweight, g_idx, k, bits), scales.shape[1]
    _check_sizes(qweight, scales, qzeros, k, n, bits)
    return repack_gptq_cut(
        qweight,
        scales,
        qzeros,
        g_idx,
        Cut.of(function, k, n, shard, k_start),
        bits=bits,
        group_size=group_size,
        sym=sym,
        checkpoint_format=checkpoint_format,
        dtype=dtype,
    )


def repack_gptq_cut(
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor | None,
    g_idx: Tensor | None,
    cut: Cut,
    *,
    bits: int,
    group_size: int,
    sym: bool | None,
    checkpoint_format: str,
    dtype: torch.dtype | None,
) -> PaddedWeight:
    """`repack_gptq` of any part of tensors whose dtypes and shapes have been checked.

    The part may begin inside a word of qweight and of qzeros, so that a reader of files can fetch
    whole words. `cut.k_given` is the number of rows up to the end of the part at least, and of
    entries of g_idx.
    """
    function = "repack_gptq"
    dtype = weight_dtype(function, scales, dtype)
    groups = _act_order_groups(g_idx, cut.k_given, group_size, cut)
    row_map = build_row_map(cut.k, group_size, k_start=cut.k_start, g_idx=groups)
    table = table_rows(
        function,
        cut,
        row_map,
        group_size,
        scales.shape[0],
        has_g_idx=g_idx is not None,
        act_order=groups is not None,
    )
    own_scales = take_scales(function, scales, table, cut, row_map, dtype)
    zeros = None
    if qzeros is not None:
        zeros = _read_zeros(qzeros.detach(), table, cut.columns, bits, checkpoint_format == "gptq")
    remedy = "pass sym=False or None, or check checkpoint_format"
    zeros = drop_if_symmetric(function, "qzeros", zeros, bits, sym, cut, row_map, remedy)
    words, first_row = _own_words(qweight, cut, bits)
    return assemble(words, first_row, row_map, own_scales, zeros, bits=bits, group_size=group_size)


def _rows(qweight: Tensor, g_idx: Tensor | None, k: int | None, bits: int) -> int:
    """k as given, or as g_idx or else whole words of qweight say."""
    if k is not None:
        return check_int("repack_gptq", "k", k, 1)
    if isinstance(g_idx, Tensor) and g_idx.dim() == 1:
        return g_idx.numel()
    return qweight.shape[0] * 32 // bits


def _check_sizes(
    qweight: Tensor, scales: Tensor, qzeros: Tensor | None, k: int, n: int, bits: int
) -> None:
    function = "repack_gptq"
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
        qzeros = check_tensor(function, "qzeros", qzeros, (torch.int32,), 2, qweight.device)
        check_shape(
            function,
            "qzeros",
            qzeros,
            scales.shape[0],
            div_up(n * bits, 32),
            f"(rows of scales, ceil(n * bits / 32)) for n = {n}, bits = {bits}",
            "check bits, and pass the tensors of one layer together",
        )


def _act_order_groups(g_idx: Tensor | None, k: int, group_size: int, cut: Cut) -> Tensor | None:
    """The group of each row of the cut, or None if they are in order."""
    if g_idx is None:
        return None
    groups = check_g_idx("repack_gptq", k, group_size, g_idx)[slice(*cut.rows)]
    return None if is_in_order(groups, group_size, cut.k_start) else groups


def _read_zeros(
    qzeros: Tensor, table: Tensor, columns: tuple[int, int], bits: int, v1: bool
) -> Tensor:
    """Zero points uint8 (scale rows, n) of a range of columns, which may begin inside a word."""
    per_word = 32 // bits
    start, stop = columns
    first_word = start // per_word
    words = qzeros[:, first_word : div_up(stop, per_word)]
    # In 64 bits, so that the carry out of the highest code is lost as it should be: only the low
    # 32 bits are read.
    words = words.index_select(0, table.to(qzeros.device)).to(torch.int64)
    if v1:
        words += _V1_ONES[bits]
    zeros = torch.empty(
        (words.shape[0], words.shape[1] * per_word), dtype=torch.uint8, device=words.device
    )
    for position in range(per_word):
        zeros[:, position::per_word] = (words >> (bits * position)) & ((1 << bits) - 1)
    offset = first_word * per_word
    return zeros[:, start - offset : stop - offset]


def _own_words(qweight: Tensor, cut: Cut, bits: int) -> tuple[Tensor, int]:
    """A view of the words that hold the cut, and the cut's first row counted from their first."""
    per_word = 32 // bits
    start, stop = cut.rows
    first_word = start // per_word
    words = qweight[first_word : div_up(stop, per_word), slice(*cut.columns)]
    if words.stride(1) != 1:
        words = words.contiguous()
    return words, start - first_word * per_word
