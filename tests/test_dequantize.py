# SPDX-License-Identifier: Apache-2.0
"""csrc/cuda/dequantize_kernel.cuh in the emulator, bit for bit against the dense weight: edges,
tables, every kind of dequantization, and nothing written outside."""

from __future__ import annotations

import itertools

import pytest
import torch

from padmarlin.layout import TILE, Dequant
from tests.kernels import EmulatedRun, emulator
from tests.weights import random_weight

native = emulator()

SENTINEL = 7.25  # what `out` holds where nothing may be written


def dequantized(weight, *, gap=0, offset=0, first_tile=0, n=None, run=None):
    """What the kernel writes, with `gap` elements between rows, `offset` elements into the memory;
    asserts that nothing else was written."""
    n = weight.n - first_tile * TILE if n is None else n
    memory = torch.full((offset + weight.k * (n + gap) + 64,), SENTINEL, dtype=weight.dtype)
    size = (weight.k, n), (n + gap, 1), offset
    out = memory.as_strided(*size)
    (run or EmulatedRun()).dequantize(weight, first_tile, out=out)
    untouched = torch.ones(memory.shape, dtype=torch.bool)
    untouched.as_strided(*size).fill_(False)
    assert (memory[untouched] == SENTINEL).all(), "written outside of out"
    return out


def check(made, **more):
    got = dequantized(made.packed, **more)
    first = more.get("first_tile", 0) * TILE
    want = made.dense[:, first : first + got.shape[1]]
    wrong = (got.float() != want.float()).nonzero()
    assert len(wrong) == 0, (made.packed, more, wrong[0].tolist())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 3.0, 300.0])
def test_every_kind_of_dequantization_is_exact(dtype, bits, symmetric, scale):
    made = random_weight(
        130, 70, bits=bits, group_size=32, symmetric=symmetric, dtype=dtype, scale=scale, seed=bits
    )
    check(made)


def test_the_scales_above_reach_every_kind():
    seen = {
        random_weight(64, 64, bits=4, symmetric=symmetric, scale=scale).packed.dequant
        for symmetric, scale in itertools.product((True, False), (1e-3, 0.05, 3.0, 300.0))
    }
    assert seen == set(Dequant)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 63, 64, 65, 127, 136])
@pytest.mark.parametrize("k", [1, 15, 64, 67, 200])
def test_ragged_sizes(k, n):
    check(random_weight(k, n, group_size=32, seed=k * 1000 + n))


@pytest.mark.parametrize("k_start", [0, 16, 24, 40, 112])
def test_a_front_pad(k_start):
    made = random_weight(100, 72, group_size=128, k_start=k_start, symmetric=False, seed=k_start)
    check(made)


@pytest.mark.parametrize("bits", [4, 8])
def test_act_order_comes_back_in_the_checkpoints_order(bits):
    made = random_weight(203, 72, bits=bits, group_size=32, act_order=True, seed=5)
    assert made.packed.columns is not None
    check(made)


@pytest.mark.parametrize("gap, offset", [(0, 0), (8, 0), (8, 8), (1, 0), (0, 3), (5, 1)])
def test_any_address_and_row_stride(gap, offset):
    for n in (64, 72, 75):
        check(random_weight(70, n, seed=n), gap=gap, offset=offset)


def test_a_range_of_tiles():
    made = random_weight(100, 300, group_size=32, symmetric=False, seed=1)
    for first_tile, n in [(0, 64), (1, 128), (2, 172), (4, 44), (3, 70)]:
        check(made, first_tile=first_tile, n=n)


@pytest.mark.parametrize("seed", range(4))
def test_the_schedule_changes_nothing(seed):
    made = random_weight(200, 130, group_size=32, act_order=True, seed=seed)
    check(made, run=EmulatedRun(seed=seed + 1, resident_blocks=3))


def test_tables_that_lie_are_not_followed():
    """Scale rows and logical rows out of range: clamped and dropped."""
    weight = random_weight(128, 64, group_size=32, act_order=True, seed=3).packed
    weight.columns[::3] = 10**9
    weight.columns[1::3] = -(10**9)
    weight.slice_rows[::2] = 2**31 - 1
    weight.slice_rows[1::2] = -5
    out = dequantized(weight)
    left = weight.columns[2::3].long()
    written = torch.zeros(128, dtype=torch.bool)
    written[left[left >= 0]] = True
    assert (out[~written] == SENTINEL).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_shared_memory_has_no_bank_conflicts(bits):
    weight = random_weight(128, 128, bits=bits, symmetric=False, seed=2).packed
    out = torch.empty((128, 128), dtype=weight.dtype)
    statistics = EmulatedRun().dequantize(weight, out=out)
    assert set(statistics) == {"st_shared", "ld_shared_v2"}
    for name, accesses in statistics.items():
        assert accesses.instructions > 0 and accesses.extra_wavefronts == 0, (name, accesses)
