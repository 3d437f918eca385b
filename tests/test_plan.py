# SPDX-License-Identifier: Apache-2.0
"""A plan says what repack does, why strict Marlin refuses, and bounds what it cannot know."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import padmarlin
from padmarlin import Shard
from tests.oracle import random_gptq


def test_qwen2_72b_down_proj_tp2() -> None:
    plan = padmarlin.plan(29568, 8192, tp=2)
    assert [rank.k_start for rank in plan.ranks] == [0, 14784]
    for rank in plan.ranks:
        assert (rank.k, rank.n, rank.front_pad) == (14784, 8192, 0)
        assert (rank.padded_k, rank.padded_n, rank.overhead) == (14784, 8192, 0.0)
        assert rank.straddles
        assert rank.exact
        assert not rank.strict_marlin
        assert rank.reasons == (
            "in_features per rank 14784 is not divisible by min_thread_k = 128",
            "in_features per rank 14784 is not divisible by group_size = 128",
        )


def test_qwen2_72b_down_proj_tp8_costs_little() -> None:
    plan = padmarlin.plan(29568, 8192, tp=8)
    assert [rank.front_pad for rank in plan.ranks] == [0, 48, 32, 16] * 2
    assert [rank.padded_k for rank in plan.ranks] == [3712, 3776, 3776, 3712] * 2
    assert max(rank.overhead for rank in plan.ranks) < 0.022
    assert plan.padded_bytes == 4 * (3712 + 3776) * 8192 // 2


def test_official_checkpoint_needs_nothing() -> None:
    plan = padmarlin.plan(29696, 8192, tp=2)
    assert plan.strict_marlin
    assert [rank.overhead for rank in plan.ranks] == [0.0, 0.0]
    assert not any(rank.straddles or rank.reasons for rank in plan.ranks)


@pytest.mark.parametrize(
    ("tp", "cost"), [(2, 0.11), (4, 0.23), (8, 0.44)], ids=["TP2", "TP4", "TP8"]
)
def test_act_order_cut_by_rows_costs_what_the_design_says(tp: int, cost: float) -> None:
    order = np.random.default_rng(2).permutation(29568)
    g_idx = torch.from_numpy(order // 128)
    known = padmarlin.plan(29568, 8192, g_idx=g_idx, tp=tp)
    bound = padmarlin.plan(29568, 8192, act_order=True, tp=tp)
    assert known.act_order
    assert known.exact
    assert not bound.exact
    assert abs(known.overhead - cost) < 0.02
    for with_g_idx, without in zip(known.ranks, bound.ranks, strict=True):
        assert with_g_idx.padded_k <= without.padded_k
        assert with_g_idx.straddles
        assert without.straddles


@pytest.mark.parametrize(
    ("k", "n", "group_size", "reasons"),
    [
        (256, 256, 128, ()),
        (256, 96, 128, ("out_features per rank 96 is not divisible by min_thread_n = 64",)),
        (192, 64, -1, ("in_features per rank 192 is not divisible by min_thread_k = 128",)),
        (256, 64, -1, ()),
        (384, 64, 256, ("in_features per rank 384 is not divisible by group_size = 256",)),
    ],
)
def test_strict_marlin(k: int, n: int, group_size: int, reasons: tuple[str, ...]) -> None:
    (rank,) = padmarlin.plan(k, n, group_size=group_size).ranks
    assert rank.reasons == reasons
    assert rank.strict_marlin == (not reasons)


@pytest.mark.parametrize(
    ("k", "group_size", "tp", "straddles"),
    [
        (512, 128, 2, [False, False]),
        (384, 128, 2, [True, True]),
        (640, 128, 5, [False] * 5),
        (384, 256, 3, [True, True, False]),
        (256, -1, 2, [False, False]),
        (256, -1, 1, [False]),
    ],
)
def test_straddles(k: int, group_size: int, tp: int, straddles: list[bool]) -> None:
    ranks = padmarlin.plan(k, 64, group_size=group_size, tp=tp).ranks
    assert [rank.straddles for rank in ranks] == straddles
    cut_along_n = padmarlin.plan(k, 64 * tp, group_size=group_size, tp=tp, axis="n").ranks
    assert not any(rank.straddles for rank in cut_along_n)


def test_a_g_idx_in_order_is_no_act_order() -> None:
    plan = padmarlin.plan(384, 64, act_order=True, g_idx=torch.arange(384) // 128, tp=2)
    assert not plan.act_order
    assert plan == padmarlin.plan(384, 64, tp=2)


GROUP_SIZES = [-1, 16, 24, 32, 64, 100, 128, 256]


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    k=st.integers(1, 600),
    n=st.sampled_from([1, 7, 64, 96]),
    bits=st.sampled_from([4, 8]),
    group_size=st.sampled_from(GROUP_SIZES),
    act_order=st.booleans(),
    tp=st.integers(1, 4),
    axis=st.sampled_from(["k", "n"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_plan_equals_repack(
    k: int,
    n: int,
    bits: int,
    group_size: int,
    act_order: bool,
    tp: int,
    axis: str,
    seed: int,
) -> None:
    assume((k if axis == "k" else n) % tp == 0)
    layer = random_gptq(
        np.random.default_rng(seed), k, n, bits=bits, group_size=group_size, act_order=act_order
    )
    tensors = layer.tensors()
    sizes = {"bits": bits, "group_size": group_size}
    plan = padmarlin.plan(k, n, g_idx=tensors.get("g_idx"), tp=tp, axis=axis, **sizes)
    blind = padmarlin.plan(k, n, act_order=act_order, tp=tp, axis=axis, **sizes)
    assert plan.exact
    for rank in range(tp):
        weight = padmarlin.repack_gptq(**layer.arguments(), shard=Shard(axis, rank, tp))
        planned, bound = plan.ranks[rank], blind.ranks[rank]
        expected = (weight.k, weight.n, weight.front_pad, weight.padded_k, weight.padded_n)
        got = (planned.k, planned.n, planned.front_pad, planned.padded_k, planned.padded_n)
        assert got == expected
        assert planned.overhead == pytest.approx(weight.overhead)
        assert planned.rank == rank
        assert planned.k_start == (rank * weight.k if axis == "k" else 0)
        assert bound.padded_k == weight.padded_k if bound.exact else True
        assert bound.padded_k >= weight.padded_k
    assert all(bound.exact for bound in blind.ranks) or (act_order and tp > 1 and axis == "k")


def most_padded_slices(rows: int, group_rows: list[int]) -> int:
    """The most 16-row slices that `rows` rows can fill, at most group_rows[i] of group i."""
    most = {0: 0}
    for size in group_rows:
        reached: dict[int, int] = {}
        for used, slices in most.items():
            for taken in range(min(size, rows - used) + 1):
                total = slices + -(-taken // 16)
                reached[used + taken] = max(reached.get(used + taken, 0), total)
        most = reached
    return most[rows]


@pytest.mark.parametrize("group_size", [1, 8, 16, 17, 24, 32, 48])
@pytest.mark.parametrize(("k", "tp"), [(96, 2), (98, 2), (120, 3), (200, 4), (64, 32)])
def test_bound_is_sharp(k: int, tp: int, group_size: int) -> None:
    group_rows = [min(group_size, k - start) for start in range(0, k, group_size)]
    slices = most_padded_slices(k // tp, group_rows)
    for rank in padmarlin.plan(k, 64, group_size=group_size, act_order=True, tp=tp).ranks:
        assert rank.padded_k == -(-slices * 16 // 64) * 64
        assert not rank.exact


def test_reads_well() -> None:
    text = str(padmarlin.plan(29568, 8192, tp=8))
    assert "29568 x 8192, 4 bits, group size 128, TP=8 along k" in text
    assert "rank 1: 3696 x 8192 from row 3696 -> 3776 x 8192, 48 in front (+2.2%)" in text
    assert "at most" in str(padmarlin.plan(29568, 8192, act_order=True, tp=8))


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "plan: k: got 0, expected an int from 1", {"k": 0}),
        (ValueError, "plan: n: got -8, expected an int from 1", {"n": -8}),
        (TypeError, "plan: k: got 384.0 of type float, expected an int", {"k": 384.0}),
        (TypeError, "plan: n: got True of type bool, expected an int", {"n": True}),
        (TypeError, "plan: k: got '384' of type str", {"k": "384"}),
        (ValueError, "plan: k: got 4294967296, expected", {"k": 2**32}),
        (ValueError, "plan: n: got 2147483647, expected at most", {"n": 2**31 - 1}),
        (ValueError, "plan: bits: got 3, expected 4 or 8", {"bits": 3}),
        (ValueError, "plan: bits: got 4.0, expected 4 or 8", {"bits": 4.0}),
        (ValueError, "plan: group_size: got 0, expected a positive int", {"group_size": 0}),
        (ValueError, "plan: group_size: got -2, expected an int from -1", {"group_size": -2}),
        (TypeError, "plan: group_size: got 64.0", {"group_size": 64.0}),
        (ValueError, "plan: tp: got 0, expected an int from 1", {"tp": 0}),
        (TypeError, "plan: tp: got True", {"tp": True}),
        (ValueError, "plan: tp: got 5, expected a divisor of k = 384", {"tp": 5}),
        (ValueError, "plan: tp: got 5, expected a divisor of n = 64", {"tp": 5, "axis": "n"}),
        (ValueError, "plan: axis: got 'm', expected 'k' or 'n'", {"axis": "m"}),
        (TypeError, "plan: act_order: got 1, expected a bool", {"act_order": 1}),
        (
            ValueError,
            "plan: g_idx: got shape (383,), expected (384,)",
            {"g_idx": torch.zeros(383, dtype=torch.int32)},
        ),
        (TypeError, "plan: g_idx: got torch.float32", {"g_idx": torch.zeros(384)}),
        (TypeError, "plan: g_idx: got list", {"g_idx": [0] * 384}),
        (
            TypeError,
            "plan: g_idx: got a meta tensor, expected a tensor with data",
            {"g_idx": torch.zeros(384, dtype=torch.int32, device="meta")},
        ),
        (ValueError, "plan: tp: got 1000000000, expected at most 65536", {"tp": 10**9}),
        (
            ValueError,
            "plan: g_idx: got 383 at row 383, expected at most 2, the last group",
            {"g_idx": torch.arange(384)},
        ),
    ],
)
def test_refusals(error: type[Exception], message: str, arguments: dict[str, object]) -> None:
    with pytest.raises(error) as refused:
        padmarlin.plan(**{"k": 384, "n": 64, **arguments})
    assert message in str(refused.value)


@pytest.mark.parametrize("group_size", [-1, 128, 96])
def test_sizes_need_no_tables(group_size: int) -> None:
    """2^31 rows are planned by arithmetic; their tables would take gigabytes."""
    k = 2**31 - 2**16
    plan = padmarlin.plan(k, 64, group_size=group_size, tp=4)
    assert sum(rank.k for rank in plan.ranks) == k
    assert all(rank.padded_k - rank.front_pad - rank.k in range(64) for rank in plan.ranks)
