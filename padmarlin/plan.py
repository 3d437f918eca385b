# SPDX-License-Identifier: Apache-2.0
"""What a tensor-parallel cut costs, rank by rank, and why strict Marlin kernels refuse it.

Sizes come from the rules of the RowMap that repack uses, from that RowMap itself if there is a
g_idx, or from a bound where only a g_idx could tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from padmarlin.errors import (
    INT32_MAX,
    check_choice,
    check_group_size,
    check_int,
    refusal,
)
from padmarlin.layout import SLICE, TILE, round_up
from padmarlin.partition import (
    RowMap,
    Shard,
    build_row_map,
    check_g_idx,
    groups_touched,
    is_in_order,
    plain_padding,
)

# The classic engine check: the smallest thread tile of the Marlin kernels (vLLM, SGLang,
# GPTQModel: GPTQ_MARLIN_MIN_THREAD_N and _K).
MIN_THREAD_N = 64
MIN_THREAD_K = 128

MAX_TP = 1 << 16
"""More ranks than any machine has, few enough to be listed."""


@dataclass(frozen=True)
class RankPlan:
    """One rank's part and the size it is padded to."""

    rank: int
    k: int  # rows of this rank
    n: int  # columns of this rank
    k_start: int  # its first row in the whole matrix
    front_pad: int  # rows of padding before it
    padded_k: int
    padded_n: int
    overhead: float  # weights stored beyond those there are, as a fraction: 0.02 is 2 %
    straddles: bool  # it shares a quantization group with another rank
    strict_marlin: bool  # the classic engine check passes
    reasons: tuple[str, ...]  # why it does not
    exact: bool  # False: padded_k is an upper bound, the g_idx is needed to tell


@dataclass(frozen=True)
class Plan:
    """How a (k, n) weight is cut and padded; see `plan`."""

    k: int
    n: int
    bits: int
    group_size: int
    act_order: bool
    tp: int
    axis: str
    ranks: tuple[RankPlan, ...]

    @property
    def exact(self) -> bool:
        """Whether every size is what repack will give, not a bound."""
        return all(rank.exact for rank in self.ranks)

    @property
    def strict_marlin(self) -> bool:
        """Whether the classic engine check passes on every rank."""
        return all(rank.strict_marlin for rank in self.ranks)

    @property
    def padded_bytes(self) -> int:
        """Bytes of packed codes of all ranks together, padding included, scales not."""
        return sum(rank.padded_k * rank.padded_n for rank in self.ranks) * self.bits // 8

    @property
    def overhead(self) -> float:
        """Weights stored on all ranks beyond those there are, as a fraction."""
        return self.padded_bytes * 8 / (self.k * self.n * self.bits) - 1

    def __str__(self) -> str:
        order = ", act-order" if self.act_order else ""
        title = f"{self.k} x {self.n}, {self.bits} bits, group size {self.group_size}{order}"
        return "\n".join([f"{title}, TP={self.tp} along {self.axis}:", *map(_line, self.ranks)])


def _line(rank: RankPlan) -> str:
    bound = "" if rank.exact else "at most "
    pad = f", {rank.front_pad} in front" if rank.front_pad else ""
    straddles = ", straddles groups" if rank.straddles else ""
    verdict = "accepted" if rank.strict_marlin else f"refused ({'; '.join(rank.reasons)})"
    return (
        f"  rank {rank.rank}: {rank.k} x {rank.n} from row {rank.k_start} -> "
        f"{bound}{rank.padded_k} x {rank.padded_n}{pad} (+{rank.overhead:.1%}){straddles}; "
        f"strict Marlin: {verdict}"
    )


def plan(
    k: int,
    n: int,
    *,
    bits: int = 4,
    group_size: int = 128,
    act_order: bool = False,
    g_idx: Tensor | None = None,
    tp: int = 1,
    axis: str = "k",
) -> Plan:
    """How repack will cut and pad a (k, n) weight for `tp` ranks.

    Args:
        k, n: in_features and out_features of the whole matrix.
        bits: 4 or 8.
        group_size: rows per quantization group, or -1: one group over all of K.
        act_order: the checkpoint has desc_act: rows of a group lie anywhere.
        g_idx: (k) the group of each row of the whole matrix; it decides whether there is
            act-order. Without it, sizes of an act-order cut along k are upper bounds.
        tp, axis: the number of ranks and the axis they cut: "k" (row-parallel) or "n".

    Raises TypeError or ValueError for arguments that repack would refuse.
    """
    k = check_int("plan", "k", k, 1)
    n = check_int("plan", "n", n, 1)
    tp = check_int("plan", "tp", tp, 1)
    if tp > MAX_TP:
        raise ValueError(refusal("plan", "tp", tp, f"at most {MAX_TP} ranks"))
    group_size = check_group_size("plan", group_size)
    check_choice("plan", "bits", bits, (4, 8))
    check_choice("plan", "axis", axis, ("k", "n"))
    if not isinstance(act_order, bool):
        raise TypeError(refusal("plan", "act_order", repr(act_order), "a bool"))
    if round_up(n, TILE) > INT32_MAX:
        expected = f"at most {INT32_MAX} (2^31 - 1) when padded to whole tiles"
        raise ValueError(refusal("plan", "n", n, expected))
    if g_idx is not None:
        g_idx = _checked_g_idx(k, group_size, g_idx)
        act_order = not is_in_order(g_idx, group_size)

    size = k if axis == "k" else n
    if size % tp:
        remedy = "choose a tp that divides it, or pad the checkpoint (padmarlin pad)"
        raise ValueError(refusal("plan", "tp", tp, f"a divisor of {axis} = {size}", remedy))
    shards = [Shard(axis, rank, tp) for rank in range(tp)]
    if axis == "k":
        rows = _cut_rows(k, group_size, act_order, g_idx, shards)
        columns = [n] * tp
    else:
        rows = _cut_rows(k, group_size, act_order, g_idx, [Shard("k", 0, 1)]) * tp
        columns = [stop - start for start, stop in (shard.bounds(n) for shard in shards)]
    ranks = tuple(
        _rank_plan(rank, part, columns[rank], group_size) for rank, part in enumerate(rows)
    )
    return Plan(k, n, bits, group_size, act_order, tp, axis, ranks)


class _Rows(NamedTuple):
    """What a rank's plan says of K."""

    k: int
    k_start: int
    front_pad: int
    padded_k: int
    straddles: bool
    exact: bool


def _cut_rows(
    k: int, group_size: int, act_order: bool, g_idx: Tensor | None, shards: list[Shard]
) -> list[_Rows]:
    bounds = [shard.bounds(k) for shard in shards]
    several_groups = groups_touched(k, group_size)[1] > 0
    if act_order and g_idx is None and several_groups:
        return [_bounded_rows(k, group_size, *bound) for bound in bounds]

    if g_idx is None or not act_order or not several_groups:
        return [_plain_rows(k, group_size, *bound) for bound in bounds]

    def row_map(start: int, stop: int) -> RowMap:
        return build_row_map(stop - start, group_size, k_start=start, g_idx=g_idx[start:stop])

    maps = [row_map(start, stop) for start, stop in bounds]
    groups, ranks_per_group = torch.cat([m.groups for m in maps]).unique(return_counts=True)
    shared = groups[ranks_per_group > 1]
    return [
        _Rows(m.k, start, m.front_pad, m.padded_k, bool(torch.isin(m.groups, shared).any()), True)
        for m, (start, _) in zip(maps, bounds, strict=True)
    ]


def _plain_rows(k: int, group_size: int, start: int, stop: int) -> _Rows:
    """A cut without act-order: it straddles where a boundary inside the matrix is none of groups.

    One group over all of K has no boundary to miss: engines give every rank its one scale row.
    """
    front_pad, padded_k = plain_padding(stop - start, group_size, start)
    boundaries = [row for row in (start, stop) if 0 < row < k and group_size != -1]
    straddles = any(row % group_size for row in boundaries)
    return _Rows(stop - start, start, front_pad, padded_k, straddles, exact=True)


def _bounded_rows(k: int, group_size: int, start: int, stop: int) -> _Rows:
    """An act-order cut without its g_idx: the most that any g_idx can cost.

    Say the rank holds n_i >= 1 rows of each of m groups, k' = sum n_i in all. Padded to slices of
    16 they take 16 sum ceil(n_i / 16) = 16 (m + sum floor((n_i - 1) / 16)) rows. A sum of floors
    is at most the floor of the sum, so this is at most 16 (m + floor((k' - m) / 16)); and as a
    group has no more than s_i rows, it is also at most 16 (m + sum floor((s_i - 1) / 16)), which is
    what all of those groups take. Both grow with m, and m <= m' = min(groups, k').

    The smaller of the two is reached: with m = m', give every group one row, then add 16 rows at a
    time wherever they fit; fewer than 16 rows stay over, or no group has room for 16 more, and
    what is left goes where there is room. So no smaller bound holds for every g_idx.

    For the whole matrix (k' = k, n_i = s_i) the second is the smaller one, and the size itself.
    """
    rows = stop - start
    whole_groups, rest = divmod(k, group_size)
    groups = whole_groups + (rest > 0)
    room = whole_groups * ((group_size - 1) // SLICE) + max(rest - 1, 0) // SLICE
    most_groups = min(groups, rows)
    most_slices = most_groups + min((rows - most_groups) // SLICE, room)
    padded_k = round_up(SLICE * most_slices, TILE)
    # A group of a single row cannot be shared.
    return _Rows(rows, start, 0, padded_k, straddles=rows < k and group_size > 1, exact=rows == k)


def _rank_plan(rank: int, rows: _Rows, n: int, group_size: int) -> RankPlan:
    padded_n = round_up(n, TILE)
    reasons = _strict_marlin_reasons(rows.k, n, group_size)
    return RankPlan(
        rank=rank,
        k=rows.k,
        n=n,
        k_start=rows.k_start,
        front_pad=rows.front_pad,
        padded_k=rows.padded_k,
        padded_n=padded_n,
        overhead=rows.padded_k * padded_n / (rows.k * n) - 1,
        straddles=rows.straddles,
        strict_marlin=not reasons,
        reasons=reasons,
        exact=rows.exact,
    )


def _strict_marlin_reasons(k: int, n: int, group_size: int) -> tuple[str, ...]:
    """The refusals of the engines' check of one rank, in their words."""
    checks = [
        (f"out_features per rank {n}", n, "min_thread_n", MIN_THREAD_N),
        (f"in_features per rank {k}", k, "min_thread_k", MIN_THREAD_K),
    ]
    if group_size != -1:
        checks.append((f"in_features per rank {k}", k, "group_size", group_size))
    return tuple(
        f"{what} is not divisible by {name} = {divisor}"
        for what, size, name, divisor in checks
        if size % divisor
    )


def _checked_g_idx(k: int, group_size: int, g_idx: Tensor) -> Tensor:
    g_idx = check_g_idx("plan", k, group_size, g_idx)
    last = groups_touched(k, group_size)[1]
    row = int(g_idx.argmax())
    if g_idx[row] > last:
        got = f"{int(g_idx[row])} at row {row}"
        expected = f"at most {last}, the last group of {k} rows at group_size {group_size}"
        raise ValueError(refusal("plan", "g_idx", got, expected))
    return g_idx
