# SPDX-License-Identifier: Apache-2.0
"""RowMap keeps its promises for any cut, any group size and any g_idx; Shard cuts evenly."""

from __future__ import annotations

import time
from math import gcd

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padmarlin.partition import RowMap, Shard, build_row_map

SLICE, TILE = 16, 64


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int, int]:
    """(k, group_size, k_start)."""
    group_size = draw(st.sampled_from([-1, 1, 7, 16, 24, 32, 48, 64, 80, 100, 128, 192, 256]))
    return draw(st.integers(1, 700)), group_size, draw(st.integers(0, 2000))


def check_promises(row_map: RowMap, groups: np.ndarray) -> None:
    """What kernels rely on, given the group of each row."""
    k = len(groups)
    source = row_map.source_rows.numpy()
    slice_rows = row_map.slice_rows.numpy()
    assert (row_map.k, row_map.padded_k % TILE) == (k, 0)
    assert source.shape == (row_map.padded_k,)
    assert slice_rows.shape == (row_map.padded_k // SLICE,)
    assert [t.dtype for t in (row_map.source_rows, row_map.slice_rows, row_map.groups)] == [
        torch.int32,
        torch.int32,
        torch.int64,
    ]
    present = source >= 0
    assert (source[~present] == -1).all()
    assert sorted(source[present]) == list(range(k)), "each row stands at one place"
    used = row_map.groups.numpy()
    assert used.tolist() == sorted(set(groups.tolist())), "the groups that occur, ascending"

    group_of_slice = used[slice_rows].repeat(SLICE)
    wrong = np.flatnonzero(group_of_slice[present] != groups[source[present]])
    assert not len(wrong), f"padded row {np.flatnonzero(present)[wrong[0]]} in a foreign slice"
    empty = ~present.reshape(-1, SLICE).any(axis=1)
    assert (slice_rows[empty] == 0).all(), "slices of padding only use scale row 0"

    if row_map.columns is None:
        expected = np.arange(row_map.padded_k) - row_map.front_pad
        expected[(expected < 0) | (expected >= k)] = -1
        np.testing.assert_array_equal(source, expected)
    else:
        assert row_map.front_pad == 0
        assert row_map.columns.dtype == torch.int32
        np.testing.assert_array_equal(row_map.columns.numpy(), source)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(ranges())
def test_rows_in_order(case: tuple[int, int, int]) -> None:
    k, group_size, k_start = case
    rows = np.arange(k_start, k_start + k)
    groups = np.zeros_like(rows) if group_size == -1 else rows // group_size
    row_map = build_row_map(k, group_size, k_start=k_start)
    check_promises(row_map, groups)
    one_group = groups[0] == groups[-1]
    assert (row_map.columns is None) == (one_group or group_size % SLICE == 0)
    if row_map.columns is None:
        front_pad = 0 if one_group else k_start % gcd(group_size, TILE)
        assert row_map.front_pad == front_pad
        assert row_map.padded_k == -(-(front_pad + k) // TILE) * TILE
        if not one_group:
            padded_from = (k_start - front_pad) // group_size
            assert padded_from == groups[0], "the pad stays in the first row's group"

    as_g_idx = torch.from_numpy(groups).to(torch.int32)
    recognised = build_row_map(k, group_size, k_start=k_start, g_idx=as_g_idx)
    assert recognised.front_pad == row_map.front_pad
    assert torch.equal(recognised.source_rows, row_map.source_rows)
    assert torch.equal(recognised.slice_rows, row_map.slice_rows)
    assert torch.equal(recognised.groups, row_map.groups)
    assert (recognised.columns is None) == (row_map.columns is None)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(ranges(), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_act_order(case: tuple[int, int, int], seed: int, most_groups: int) -> None:
    k, group_size, k_start = case
    if group_size == -1:
        group_size = 128
    groups = np.random.default_rng(seed).integers(0, most_groups, k)
    row_map = build_row_map(k, group_size, k_start=k_start, g_idx=torch.from_numpy(groups))
    check_promises(row_map, groups)
    if row_map.columns is None:
        assert len(row_map.groups) == 1 or (np.diff(groups) >= 0).all()
        return
    source = row_map.source_rows.numpy()
    counts = np.bincount(groups)
    assert row_map.padded_k == -(-sum(-(-c // SLICE) * SLICE for c in counts) // TILE) * TILE
    order = source[source >= 0]
    np.testing.assert_array_equal(order, np.argsort(groups, kind="stable"))


def test_one_group_needs_no_table() -> None:
    row_map = build_row_map(100, 128, k_start=300, g_idx=torch.full((100,), 7))
    assert row_map.columns is None
    assert (row_map.front_pad, row_map.padded_k, row_map.groups.tolist()) == (0, 128, [7])


@pytest.mark.parametrize(
    ("tp", "front_pads", "padded"),
    [
        (2, [0, 0], [14784, 14784]),
        (4, [0, 32, 0, 32], [7424] * 4),
        (8, [0, 48, 32, 16] * 2, [3712, 3776, 3776, 3712] * 2),
    ],
)
def test_qwen2_72b_down_proj(tp: int, front_pads: list[int], padded: list[int]) -> None:
    shards = [Shard("k", rank, tp).bounds(29568) for rank in range(tp)]
    maps = [build_row_map(stop - start, 128, k_start=start) for start, stop in shards]
    assert [m.front_pad for m in maps] == front_pads
    assert [m.padded_k for m in maps] == padded


def test_a_million_rows_take_no_time() -> None:
    g_idx = torch.randint(0, 7813, (10**6,), generator=torch.Generator().manual_seed(1))
    start = time.process_time()
    assert build_row_map(10**6, 128, g_idx=g_idx).columns is not None
    assert build_row_map(10**6, 24, k_start=5).columns is not None
    assert build_row_map(10**6, 128, k_start=5).columns is None
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "build_row_map: k: got 0, expected an int from 1", {"k": 0}),
        (TypeError, "build_row_map: k: got True of type bool, expected an int", {"k": True}),
        (TypeError, "build_row_map: k: got 64.0 of type float", {"k": 64.0}),
        (ValueError, "build_row_map: k: got 2147483648, expected", {"k": 2**31}),
        (ValueError, "build_row_map: k: got 2147483648 rows after padding", {"k": 2**31 - 1}),
        (ValueError, "build_row_map: k_start: got -1, expected", {"k_start": -1}),
        (ValueError, "k_start + k: got 2147483657, expected", {"k": 10, "k_start": 2**31 - 1}),
        (ValueError, "group_size: got 0, expected a positive int, or -1", {"group_size": 0}),
        (ValueError, "group_size: got -2, expected", {"group_size": -2}),
        (TypeError, "g_idx: got list, expected an int32 or int64 tensor", {"g_idx": [0] * 64}),
        (TypeError, "g_idx: got torch.float32, expected", {"g_idx": torch.zeros(64)}),
        (
            ValueError,
            "g_idx: got shape (63,), expected (64,) = (k,)",
            {"g_idx": torch.zeros(63, dtype=torch.int32)},
        ),
        (
            ValueError,
            "g_idx: got -1 at row 0, expected a group number >= 0",
            {"g_idx": torch.arange(-1, 63)},
        ),
        (
            ValueError,
            "g_idx: got 63 at row 63, expected 0, as group_size = -1",
            {"g_idx": torch.arange(64), "group_size": -1},
        ),
    ],
)
def test_refusals(error: type[Exception], message: str, arguments: dict[str, object]) -> None:
    with pytest.raises(error) as refused:
        build_row_map(**{"k": 64, "group_size": 128, **arguments})
    assert message in str(refused.value)


def test_shards_cover_the_whole() -> None:
    bounds = [Shard("n", rank, 3).bounds(21) for rank in range(3)]
    assert bounds == [(0, 7), (7, 14), (14, 21)]


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "Shard: axis: got 'm', expected 'k' or 'n'", ("m", 0, 2)),
        (ValueError, "Shard: world_size: got 0", ("k", 0, 0)),
        (ValueError, "Shard: rank: got 2, expected less than world_size = 2", ("k", 2, 2)),
        (ValueError, "Shard: rank: got -1", ("k", -1, 2)),
        (TypeError, "Shard: rank: got False of type bool", ("k", False, 2)),
        (TypeError, "Shard: world_size: got 2.0 of type float", ("k", 0, 2.0)),
    ],
)
def test_shard_refusals(error: type[Exception], message: str, arguments: tuple) -> None:
    with pytest.raises(error) as refused:
        Shard(*arguments)
    assert message in str(refused.value)


def test_shard_refuses_a_size_that_it_cannot_divide() -> None:
    with pytest.raises(ValueError, match="world_size") as refused:
        Shard("k", 0, 5).bounds(29568)
    assert str(refused.value) == (
        "Shard.bounds: size: got 29568 along axis 'k', expected a multiple of world_size = 5; "
        "choose a tensor-parallel size that divides it, or pad the checkpoint to 29570"
    )


def test_shard_counts_in_python_ints() -> None:
    """numpy's small ones would wrap around, or refuse to be multiplied."""
    shard = Shard("k", np.int8(1), np.int8(2))
    assert shard.bounds(29568) == (14784, 29568)
    assert type(shard.rank) is int
