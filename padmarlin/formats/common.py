# SPDX-License-Identifier: Apache-2.0
"""The steps that all formats share: which part to take, which rows of the tables belong to it,
whether its scales and zeros can be kept, and the assembly of a ``PaddedWeight``.

A format itself knows only how its words hold codes and zero points.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from padmarlin import ops
from padmarlin.errors import check_data, check_int, refusal
from padmarlin.layout import (
    TILE,
    Dequant,
    choose_dequant,
    code_order,
    field_base,
    pack_scales,
    pack_zeros,
    round_up,
    symmetric_zero,
)
from padmarlin.partition import RowMap, Shard, groups_touched
from padmarlin.weight import PaddedWeight

_ = ops  # defines torch.ops.padmarlin

WEIGHT_DTYPES = (torch.float16, torch.bfloat16)
SCALE_DTYPES = (*WEIGHT_DTYPES, torch.float32)


def check_tensor(
    function: str,
    argument: str,
    tensor: Any,
    dtypes: tuple[torch.dtype, ...],
    dim: int,
    device: torch.device | None = None,
) -> Tensor:
    """`tensor`, detached, after checking its dtype, number of dimensions, emptiness and device."""
    expected = " or ".join(str(dtype) for dtype in dtypes)
    if not isinstance(tensor, Tensor):
        raise TypeError(refusal(function, argument, type(tensor).__name__, f"a Tensor, {expected}"))
    if tensor.dtype not in dtypes:
        raise TypeError(refusal(function, argument, tensor.dtype, expected))
    if device is not None and tensor.device != device:
        remedy = "move all tensors to one device"
        raise ValueError(refusal(function, argument, tensor.device, f"device {device}", remedy))
    check_data(function, argument, tensor)
    if tensor.dim() != dim or tensor.numel() == 0:
        got, expected = f"shape {tuple(tensor.shape)}", f"a non-empty {dim}-D tensor"
        raise ValueError(refusal(function, argument, got, expected))
    return tensor.detach()


def check_shape(
    function: str, argument: str, tensor: Tensor, rows: int, columns: int, meaning: str, remedy: str
) -> None:
    """Refuses a 2-D `tensor` that is not (rows, columns); `meaning` is that in the user's terms."""
    if tuple(tensor.shape) != (rows, columns):
        got, expected = f"shape {tuple(tensor.shape)}", f"({rows}, {columns}) = {meaning}"
        raise ValueError(refusal(function, argument, got, expected, remedy))


def weight_dtype(function: str, scales: Tensor, dtype: Any) -> torch.dtype:
    """What `dtype` asks for; None: the dtype of the scales, fp16 if that is fp32."""
    if dtype is None:
        return torch.float16 if scales.dtype == torch.float32 else scales.dtype
    if not isinstance(dtype, torch.dtype) or dtype not in WEIGHT_DTYPES:
        raise TypeError(
            refusal(function, "dtype", repr(dtype), "torch.float16, torch.bfloat16 or None")
        )
    return dtype


@dataclass(frozen=True)
class Cut:
    """The part of the given tensors that becomes one weight."""

    k_start: int  # first row's number in the whole matrix
    rows: tuple[int, int]  # range among the rows given
    columns: tuple[int, int]  # range among the columns given
    whole_tables: bool  # scales and zeros hold every group of the matrix
    k_given: int  # rows given

    @property
    def k(self) -> int:
        return self.rows[1] - self.rows[0]

    @classmethod
    def of(cls, function: str, k: int, n: int, shard: Any, k_start: Any) -> Cut:
        """`shard` of a whole (k, n) matrix, or all of one rank's rows, `k_start` its first."""
        k_start = check_int(function, "k_start", k_start, 0)
        if shard is None:
            return cls(k_start, (0, k), (0, n), whole_tables=False, k_given=k)
        if not isinstance(shard, Shard):
            got = type(shard).__name__
            raise TypeError(refusal(function, "shard", got, "a padmarlin.Shard or None"))
        if k_start:
            remedy = "pass shard for the whole matrix's tensors, k_start for one rank's"
            raise ValueError(refusal(function, "k_start", k_start, "0, as shard is given", remedy))
        rows = shard.bounds(k) if shard.axis == "k" else (0, k)
        columns = shard.bounds(n) if shard.axis == "n" else (0, n)
        return cls(rows[0], rows, columns, whole_tables=True, k_given=k)


def table_rows(
    function: str,
    cut: Cut,
    row_map: RowMap,
    group_size: int,
    given: int,
    *,
    has_g_idx: bool = False,
    act_order: bool = False,
) -> Tensor:
    """Which of the `given` rows of the scale table belong to `row_map.groups`: int64.

    A whole matrix's table has all groups. One rank's table has the groups that its rows touch;
    but with act-order it is whole, and engines that read a g_idx at all may leave it whole too.
    """
    start = cut.k_start - cut.rows[0]
    first, last = groups_touched(cut.k_given, group_size, start)
    touched = last - first + 1
    rank_with_whole_table = has_g_idx and not cut.whole_tables and given > last
    if given == touched and not (act_order and not cut.whole_tables):
        first_in_table = first
    elif rank_with_whole_table:
        first_in_table = 0
    else:
        expected = f"{touched}, the groups of rows {start} to {start + cut.k_given - 1}"
        if act_order and not cut.whole_tables:
            expected = f"at least {last + 1}: with act-order the tables stay whole"
        remedy = (
            f"check group_size = {group_size}; pass shard with the whole matrix's tensors, "
            "k_start with one rank's"
        )
        raise ValueError(refusal(function, "scales", f"{given} rows", expected, remedy))
    highest = int(row_map.groups[-1])
    if highest - first_in_table >= given:
        expected = f"at most {given - 1}, as scales has {given} rows"
        raise ValueError(refusal(function, "g_idx", f"group {highest}", expected))
    return row_map.groups - first_in_table


def take_scales(
    function: str, scales: Tensor, table: Tensor, cut: Cut, row_map: RowMap, dtype: torch.dtype
) -> Tensor:
    """The scales (scale rows, n) of a cut in `dtype`, which must be able to hold them."""
    start, stop = cut.columns
    original = scales[:, start:stop].index_select(0, table.to(scales.device))
    converted = original.to(dtype)
    lost = ~converted.isfinite() | ((converted == 0) & (original != 0))
    if lost.any():
        row, column = (int(index) for index in lost.nonzero()[0])
        value, info = float(original[row, column]), torch.finfo(dtype)
        got = f"{value:g} at group {int(row_map.groups[row])}, column {start + column}"
        smallest = info.smallest_normal * info.eps  # the smallest subnormal
        expected = f"0 or a size from {smallest:g} to {info.max:g}, which {dtype} can hold"
        wider = isfinite(value) and dtype != torch.bfloat16
        remedy = (
            "pass dtype=torch.bfloat16, of wider range" if wider else "quantize this layer again"
        )
        raise ValueError(refusal(function, "scales", got, expected, remedy))
    return converted


def drop_if_symmetric(
    function: str,
    argument: str,
    zeros: Tensor | None,
    bits: int,
    sym: Any,
    cut: Cut,
    row_map: RowMap,
    remedy: str,
) -> Tensor | None:
    """`zeros` (scale rows, n), or None if they are all the symmetric zero point.

    `sym=False` does not keep such zeros: they would give the same numbers, only slower.
    """
    if not isinstance(sym, (bool, type(None))):
        raise TypeError(refusal(function, "sym", repr(sym), "True, False or None"))
    if zeros is None:
        if sym is False:
            raise ValueError(
                refusal(function, argument, None, "a Tensor, as sym=False", "pass sym=None or True")
            )
        return None
    other = zeros != symmetric_zero(bits)
    if not other.any():
        return None
    if sym:
        row, column = (int(index) for index in other.nonzero()[0])
        got = (
            f"zero point {int(zeros[row, column])} at group {int(row_map.groups[row])}, "
            f"column {cut.columns[0] + column}"
        )
        expected = f"{symmetric_zero(bits)} everywhere, as sym=True"
        raise ValueError(refusal(function, argument, got, expected, remedy))
    return zeros


def assemble(
    words: Tensor,
    first_row: int,
    row_map: RowMap,
    scales: Tensor,
    zeros: Tensor | None,
    *,
    bits: int,
    group_size: int,
) -> PaddedWeight:
    """Repacks codes and tables into tiles.

    Args:
        words: int32 (words, n), 32 / bits rows per word, lowest bits first: GPTQ's packing.
        first_row: the row of `words` that is row 0 of `row_map`.
        scales: (scale rows, n) in the weight's dtype.
        zeros: uint8 (scale rows, n), or None: symmetric.
    """
    n, device = scales.shape[1], words.device
    padded_columns = (0, round_up(n, TILE) - n)
    # A padding column has scale 0; its code equals its zero point (0, or the symmetric one).
    scales = pad(scales, padded_columns)
    zeros = None if zeros is None else pad(zeros, padded_columns).contiguous()
    dequant = choose_dequant(scales, bits)
    order = code_order(scales.dtype, bits)
    slice_rows = row_map.slice_rows.to(device)
    source_rows = row_map.source_rows
    source_rows = torch.where(source_rows < 0, source_rows, source_rows + first_row).to(device)
    qweight = torch.ops.padmarlin.repack_gptq(
        words, source_rows, slice_rows, zeros, n, bits, field_base(order)
    )
    if zeros is None and dequant == Dequant.WIDE:
        zeros = torch.full_like(scales, symmetric_zero(bits), dtype=torch.uint8)
    return PaddedWeight(
        qweight=qweight,
        scales=pack_scales(scales, bits, dequant),
        zeros=None if zeros is None else pack_zeros(zeros, scales.dtype, bits, dequant),
        slice_rows=slice_rows,
        columns=None if row_map.columns is None else row_map.columns.to(device),
        k=row_map.k,
        n=n,
        bits=bits,
        group_size=group_size,
        front_pad=row_map.front_pad,
        dequant=dequant,
        code_order=order,
    )
