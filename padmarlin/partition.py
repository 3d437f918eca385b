# SPDX-License-Identifier: Apache-2.0
"""The one place where raggedness is resolved: which row of a shard stands at which padded row.

Every kernel relies on what a RowMap promises: padded_k is a whole number of tiles, and every
16-row slice (k-slice) holds rows of one quantization group only.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor

from padmarlin.errors import (
    INT32_MAX,
    check_choice,
    check_data,
    check_group_size,
    check_int,
    refusal,
)
from padmarlin.layout import SLICE, TILE, div_up, round_up


@dataclass(frozen=True)
class Shard:
    """One rank's part of a matrix: equal contiguous ranges of K ("k": row-parallel) or N ("n")."""

    axis: str
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        check_choice("Shard", "axis", self.axis, ("k", "n"))
        # As ints: what numpy's small ones multiply to would wrap around.
        for name, minimum in (("world_size", 1), ("rank", 0)):
            object.__setattr__(self, name, check_int("Shard", name, getattr(self, name), minimum))
        if self.rank >= self.world_size:
            expected = f"less than world_size = {self.world_size}"
            raise ValueError(refusal("Shard", "rank", self.rank, expected))

    def bounds(self, size: int) -> tuple[int, int]:
        """(start, stop) of this rank's part of `size` rows or columns."""
        size = check_int("Shard.bounds", "size", size, 1)
        part, rest = divmod(size, self.world_size)
        if rest:
            raise ValueError(
                refusal(
                    "Shard.bounds",
                    "size",
                    f"{size} along axis {self.axis!r}",
                    f"a multiple of world_size = {self.world_size}",
                    "choose a tensor-parallel size that divides it, or pad the checkpoint to "
                    f"{round_up(size, self.world_size)}",
                )
            )
        return self.rank * part, (self.rank + 1) * part


@dataclass(frozen=True, eq=False)
class RowMap:
    """Where the k rows of a shard stand among padded_k rows, and which scale row each slice uses.

    Tensors are on the CPU. Rows are counted from the shard's first.
    """

    k: int
    front_pad: int  # rows of padding before the first (0 with `columns`)
    padded_k: int  # a multiple of TILE
    source_rows: Tensor  # int32 (padded_k): the row that stands here, -1: padding
    slice_rows: Tensor  # int32 (padded_k / SLICE): scale row of each k-slice; 0 if all padding
    groups: Tensor  # int64: the checkpoint's group behind each scale row, ascending
    columns: Tensor | None  # int32 (padded_k): column of A each row reads, -1: none; None: in order


def build_row_map(
    k: int, group_size: int, *, k_start: int = 0, g_idx: Tensor | None = None
) -> RowMap:
    """The RowMap of the rows [k_start, k_start + k) of a matrix.

    Args:
        k: rows of this shard.
        group_size: rows per quantization group, or -1: one group over all of K.
        k_start: the first row's number in the whole matrix.
        g_idx: (k) the group of each row, counted over the whole matrix (act-order), or None:
            row i belongs to group (i + k_start) // group_size. A g_idx that says just that is
            recognised and costs nothing.

    Rows stay in their order wherever that leaves one group per slice; else they are sorted by
    group and `columns` tells where A has them.
    """
    k = check_int("build_row_map", "k", k, 1)
    k_start = check_int("build_row_map", "k_start", k_start, 0)
    check_int("build_row_map", "k_start + k", k_start + k, 1)
    group_size = check_group_size("build_row_map", group_size)

    if g_idx is not None:
        g_idx = check_g_idx("build_row_map", k, group_size, g_idx)
        if not is_in_order(g_idx, group_size, k_start):
            first, last = (int(bound) for bound in g_idx.aminmax())
            return _one_group(k, first) if first == last else _sorted_by_group(g_idx)

    first, last = groups_touched(k, group_size, k_start)
    if first == last:
        return _one_group(k, first)
    if group_size % SLICE == 0:
        return _in_order(k, group_size, k_start)
    return _sorted_by_group(_row_groups(k, group_size, k_start))


def groups_touched(k: int, group_size: int, k_start: int = 0) -> tuple[int, int]:
    """(first, last) group of the rows [k_start, k_start + k), without act-order."""
    if group_size == -1:
        return 0, 0
    return k_start // group_size, (k_start + k - 1) // group_size


def plain_padding(k: int, group_size: int, k_start: int = 0) -> tuple[int, int]:
    """(front_pad, padded_k) of `build_row_map` without act-order, and without making its tables."""
    first, last = groups_touched(k, group_size, k_start)
    if first == last:
        return 0, _checked_padded_k(k)
    if group_size % SLICE == 0:
        front_pad = k_start % gcd(group_size, TILE)  # explained in _in_order
        return front_pad, _checked_padded_k(front_pad + k)
    head = (first + 1) * group_size - k_start
    tail = k_start + k - last * group_size
    slices = div_up(head, SLICE) + (last - first - 1) * div_up(group_size, SLICE)
    return 0, _checked_padded_k(SLICE * (slices + div_up(tail, SLICE)))


def is_in_order(g_idx: Tensor, group_size: int, k_start: int = 0) -> bool:
    """Whether `g_idx` says no more than (arange + k_start) // group_size: no act-order."""
    return torch.equal(g_idx, _row_groups(g_idx.numel(), group_size, k_start))


def _row_groups(k: int, group_size: int, k_start: int) -> Tensor:
    if group_size == -1:
        return torch.zeros(k, dtype=torch.int64)
    return torch.arange(k_start, k_start + k).div_(group_size, rounding_mode="floor")


def check_g_idx(
    function: str, k: int, group_size: int, g_idx: Tensor, argument: str = "g_idx"
) -> Tensor:
    """`g_idx` on the CPU as int64, after checking that it names a group for each of k rows."""
    if not isinstance(g_idx, Tensor):
        got = type(g_idx).__name__
        raise TypeError(refusal(function, argument, got, "an int32 or int64 tensor"))
    if g_idx.dtype not in (torch.int32, torch.int64):
        raise TypeError(refusal(function, argument, g_idx.dtype, "torch.int32 or torch.int64"))
    check_data(function, argument, g_idx)
    if g_idx.shape != (k,):
        remedy = "pass the group of each row, or None without act-order"
        got, expected = f"shape {tuple(g_idx.shape)}", f"({k},) = (k,)"
        raise ValueError(refusal(function, argument, got, expected, remedy))
    g_idx = g_idx.detach().cpu().to(torch.int64)
    lowest, highest = int(g_idx.argmin()), int(g_idx.argmax())
    if g_idx[lowest] < 0:
        got = f"{int(g_idx[lowest])} at row {lowest}"
        raise ValueError(refusal(function, argument, got, "a group number >= 0"))
    if group_size == -1 and g_idx[highest] > 0:
        got = f"{int(g_idx[highest])} at row {highest}"
        expected = "0, as group_size = -1 means one group"
        raise ValueError(refusal(function, argument, got, expected, "pass the group_size"))
    return g_idx


def _one_group(k: int, group: int) -> RowMap:
    """All rows share a scale row: nothing can straddle, wherever the shard begins."""
    padded_k = _checked_padded_k(k)
    return RowMap(
        k=k,
        front_pad=0,
        padded_k=padded_k,
        source_rows=_consecutive_rows(k, 0, padded_k),
        slice_rows=torch.zeros(padded_k // SLICE, dtype=torch.int32),
        groups=torch.tensor([group]),
        columns=None,
    )


def _in_order(k: int, group_size: int, k_start: int) -> RowMap:
    """Rows in their order, behind enough padding to stay on the group grid.

    Let d = gcd(group_size, TILE) and front_pad = k_start mod d. Padded row p stands for row
    origin + p of the whole matrix, with origin = k_start - front_pad a multiple of d.
    - One group per slice: group_size is a multiple of SLICE and TILE is one too, so SLICE divides
      d, hence origin. Slice r is then rows [16 j, 16 j + 16) of the matrix for j = origin / 16 + r,
      and a group, whose ends are multiples of 16, contains all of them or none.
    - The pad stays in k_start's own group: d divides group_size, so origin, the largest multiple
      of d that does not exceed k_start, is not below k_start's group's first row. Slices of
      nothing but front padding therefore get scale row 0 by the same formula as the others.
    Alignment to SLICE alone would keep one group per slice; alignment to d keeps whole tiles on the
    group grid as well, so that a tile needs no more than TILE / d scale rows. It costs at most
    TILE - SLICE rows.
    """
    front_pad, padded_k = plain_padding(k, group_size, k_start)
    first, last = groups_touched(k, group_size, k_start)
    used_slices = div_up(front_pad + k, SLICE)
    slice_starts = torch.arange(used_slices) * SLICE + (k_start - front_pad)
    slice_rows = torch.zeros(padded_k // SLICE, dtype=torch.int32)
    slice_rows[:used_slices] = slice_starts.div_(group_size, rounding_mode="floor") - first
    return RowMap(
        k=k,
        front_pad=front_pad,
        padded_k=padded_k,
        source_rows=_consecutive_rows(k, front_pad, padded_k),
        slice_rows=slice_rows,
        groups=torch.arange(first, last + 1),
        columns=None,
    )


def _sorted_by_group(g_idx: Tensor) -> RowMap:
    """Rows sorted by group, in their order within it; each group padded to whole slices."""
    k = g_idx.numel()
    sorted_groups, order = torch.sort(g_idx, stable=True)
    groups, counts = torch.unique_consecutive(sorted_groups, return_counts=True)
    slices = (counts + SLICE - 1).div_(SLICE, rounding_mode="floor")
    padded_k = _checked_padded_k(SLICE * int(slices.sum()))

    # A row moves down by all the padding of the groups before its own.
    padding = slices * SLICE - counts
    padding_before = padding.cumsum(0) - padding
    position = torch.arange(k) + padding_before.repeat_interleave(counts)
    source_rows = torch.full((padded_k,), -1, dtype=torch.int32)
    source_rows[position] = order.to(torch.int32)

    slice_rows = torch.zeros(padded_k // SLICE, dtype=torch.int32)
    rows_of_slices = torch.arange(groups.numel(), dtype=torch.int32).repeat_interleave(slices)
    slice_rows[: rows_of_slices.numel()] = rows_of_slices
    return RowMap(
        k=k,
        front_pad=0,
        padded_k=padded_k,
        source_rows=source_rows,
        slice_rows=slice_rows,
        groups=groups,
        columns=source_rows.clone(),
    )


def _consecutive_rows(k: int, front_pad: int, padded_k: int) -> Tensor:
    source_rows = torch.full((padded_k,), -1, dtype=torch.int32)
    source_rows[front_pad : front_pad + k] = torch.arange(k, dtype=torch.int32)
    return source_rows


def _checked_padded_k(rows: int) -> int:
    padded_k = round_up(rows, TILE)
    if padded_k > INT32_MAX:
        got = f"{padded_k} rows after padding"
        raise ValueError(refusal("build_row_map", "k", got, f"at most {INT32_MAX} (2^31 - 1)"))
    return padded_k
