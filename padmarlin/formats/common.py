# SPDX-License-Identifier: Apache-2.0
"""What all formats share: which part to take, which rows of the tables belong to it, whether its
scales and zeros can be kept, and the assembly of a ``PaddedWeight``.

A format itself knows only its tensors: their names, their shapes, how they hold zero points.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from padmarlin import ops
from padmarlin.errors import check_choice, check_data, check_group_size, check_int, refusal
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
from padmarlin.packing import Packing, read_zeros
from padmarlin.partition import (
    RowMap,
    Shard,
    build_row_map,
    check_g_idx,
    groups_touched,
    is_in_order,
)
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


def check_words(
    function: str,
    argument: str,
    words: Any,
    device: torch.device | None,
    shape: tuple[int, int],
    meaning: str,
    remedy: str,
) -> Tensor:
    """`words`, detached, after checking that it is int32 of that shape."""
    words = check_tensor(function, argument, words, (torch.int32,), 2, device)
    check_shape(function, argument, words, *shape, meaning, remedy)
    return words


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


@dataclass(frozen=True)
class Layer:
    """A quantized (k, n) layer, or as much of it as is given, in the terms that formats share.

    The dtypes and shapes have been checked. Formats name their tensors differently; refusals speak
    of them by those names.
    """

    function: str
    packing: Packing
    words: Tensor
    scales: Tensor  # (groups, n)
    zeros: Tensor | None  # words
    g_idx: Tensor | None
    bits: int
    group_size: int
    sym: bool | None
    scales_name: str = "scales"
    zeros_name: str = "qzeros"
    g_idx_name: str = "g_idx"
    zeros_remedy: str = "pass sym=False or None"


def check_coding(function: str, bits: Any, group_size: Any, sym: Any) -> int:
    """The group size, after checking what says how to read codes."""
    check_choice(function, "bits", bits, (4, 8))
    if not isinstance(sym, (bool, type(None))):
        raise TypeError(refusal(function, "sym", repr(sym), "True, False or None"))
    return check_group_size(function, group_size)


def repack(layer: Layer, cut: Cut, dtype: torch.dtype | None) -> PaddedWeight:
    """The part of a layer that `cut` says, as a weight of `dtype`.

    The part may begin inside a word, so that a reader of files can fetch whole words.
    `cut.k_given` is the number of rows up to the end of the part at least, and of entries of g_idx.
    """
    dtype = weight_dtype(layer.function, layer.scales, dtype)
    g_idx = _act_order(layer, cut)
    row_map = build_row_map(cut.k, layer.group_size, k_start=cut.k_start, g_idx=g_idx)
    table = _table_rows(layer, cut, row_map, g_idx is not None).to(layer.words.device)
    scales = _take_scales(layer, table, cut, row_map, dtype)
    zeros = _take_zeros(layer, table, cut, row_map)
    return _assemble(layer, cut, row_map, scales, zeros)


def _act_order(layer: Layer, cut: Cut) -> Tensor | None:
    """The group of each row of the cut, or None if they are in order."""
    if layer.g_idx is None:
        return None
    g_idx = check_g_idx(
        layer.function, cut.k_given, layer.group_size, layer.g_idx, layer.g_idx_name
    )[slice(*cut.rows)]
    return None if is_in_order(g_idx, layer.group_size, cut.k_start) else g_idx


def _table_rows(layer: Layer, cut: Cut, row_map: RowMap, act_order: bool) -> Tensor:
    """Which rows of the scale table belong to `row_map.groups`: int64.

    A whole matrix's table has all groups. One rank's table has the groups that its rows touch;
    but with act-order it is whole, and engines that read a g_idx at all may leave it whole too.
    """
    given, start = layer.scales.shape[0], cut.k_start - cut.rows[0]
    first, last = groups_touched(cut.k_given, layer.group_size, start)
    touched = last - first + 1
    rank_with_whole_table = layer.g_idx is not None and not cut.whole_tables and given > last
    if given == touched and not (act_order and not cut.whole_tables):
        first_in_table = first
    elif rank_with_whole_table:
        first_in_table = 0
    else:
        expected = f"{touched}, the groups of rows {start} to {start + cut.k_given - 1}"
        if act_order and not cut.whole_tables:
            expected = f"at least {last + 1}: with act-order the tables stay whole"
        remedy = (
            f"check group_size = {layer.group_size}; pass shard with the whole matrix's tensors, "
            "k_start with one rank's"
        )
        got = f"{given} groups"
        raise ValueError(refusal(layer.function, layer.scales_name, got, expected, remedy))
    highest = int(row_map.groups[-1])
    if highest - first_in_table >= given:
        expected = f"at most {given - 1}, as {layer.scales_name} has {given} groups"
        raise ValueError(refusal(layer.function, layer.g_idx_name, f"group {highest}", expected))
    return row_map.groups - first_in_table


def _take_scales(
    layer: Layer, table: Tensor, cut: Cut, row_map: RowMap, dtype: torch.dtype
) -> Tensor:
    """The scales (scale rows, n) of a cut in `dtype`, which must be able to hold them."""
    start, stop = cut.columns
    original = layer.scales[:, start:stop].index_select(0, table)
    converted = original.to(dtype)
    lost = ~converted.isfinite() | ((converted == 0) & (original != 0))
    if lost.any():
        row, column = (int(index) for index in lost.nonzero()[0])
        value, info = float(original[row, column]), torch.finfo(dtype)
        got = f"{value:g} at {_place(row, column, cut, row_map)}"
        smallest = info.smallest_normal * info.eps  # the smallest subnormal
        expected = f"0 or a size from {smallest:g} to {info.max:g}, which {dtype} can hold"
        wider = isfinite(value) and dtype != torch.bfloat16
        remedy = (
            "pass dtype=torch.bfloat16, of wider range" if wider else "quantize this layer again"
        )
        raise ValueError(refusal(layer.function, layer.scales_name, got, expected, remedy))
    return converted


def _take_zeros(layer: Layer, table: Tensor, cut: Cut, row_map: RowMap) -> Tensor | None:
    """The zero points uint8 (scale rows, n), or None if they are all the symmetric one.

    `sym=False` does not keep such zeros: they would give the same numbers, only slower.
    """
    if layer.zeros is None:
        if layer.sym is False:
            expected, remedy = "a Tensor, as sym=False", "pass sym=None or True"
            raise ValueError(refusal(layer.function, layer.zeros_name, None, expected, remedy))
        return None
    zeros = read_zeros(layer.zeros, layer.packing, table, *cut.columns, layer.bits).to(torch.uint8)
    other = zeros != symmetric_zero(layer.bits)
    if not other.any():
        return None
    if layer.sym:
        row, column = (int(index) for index in other.nonzero()[0])
        got = f"zero point {int(zeros[row, column])} at {_place(row, column, cut, row_map)}"
        expected = f"{symmetric_zero(layer.bits)} everywhere, as sym=True"
        remedy = layer.zeros_remedy
        raise ValueError(refusal(layer.function, layer.zeros_name, got, expected, remedy))
    return zeros


def _place(row: int, column: int, cut: Cut, row_map: RowMap) -> str:
    """Where in the given tables an entry of the cut's tables stands."""
    return f"group {int(row_map.groups[row])}, column {cut.columns[0] + column}"


def _assemble(
    layer: Layer, cut: Cut, row_map: RowMap, scales: Tensor, zeros: Tensor | None
) -> PaddedWeight:
    """Repacks codes and tables, scales in the weight's dtype and zeros uint8, into tiles."""
    n, bits, device = scales.shape[1], layer.bits, layer.words.device
    padded_columns = (0, round_up(n, TILE) - n)
    # A padding column has scale 0; its code equals its zero point (0, or the symmetric one).
    scales = pad(scales, padded_columns).contiguous()
    zeros = None if zeros is None else pad(zeros, padded_columns).contiguous()
    dequant = choose_dequant(scales, bits)
    order = code_order(scales.dtype, bits)
    slice_rows = row_map.slice_rows.to(device)
    source_rows = row_map.source_rows
    source_rows = torch.where(source_rows < 0, source_rows, source_rows + cut.rows[0]).to(device)
    words = layer.words if layer.words.stride(1) == 1 else layer.words.contiguous()
    qweight = torch.ops.padmarlin.repack(
        words,
        source_rows,
        slice_rows,
        zeros,
        layer.packing,
        cut.columns[0],
        n,
        bits,
        field_base(order),
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
        group_size=layer.group_size,
        front_pad=row_map.front_pad,
        dequant=dequant,
        code_order=order,
    )
