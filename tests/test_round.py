# SPDX-License-Identifier: Apache-2.0
"""csrc/cuda/round_kernel.cuh in the emulator: one rounding, any address and row stride, every edge,
and nothing written outside."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.kernels import EmulatedRun, emulator

emulator()

SENTINEL = 7.25  # what `out` holds where nothing may be written
DTYPES = [torch.float16, torch.bfloat16]


def rounded(products, bias, dtype, *, n=None, gap=0, offset=0, run=None):
    """What the kernel writes, with `gap` elements between rows, `offset` elements into the memory;
    asserts that nothing else was written."""
    m, n = products.shape[0], products.shape[1] if n is None else n
    memory = torch.full((offset + m * (n + gap) + 64,), SENTINEL, dtype=dtype)
    size = (m, n), (n + gap, 1), offset
    out = memory.as_strided(*size)
    (run or EmulatedRun()).round(products, bias, out=out)
    untouched = torch.ones(memory.shape, dtype=torch.bool)
    untouched.as_strided(*size).fill_(False)
    assert (memory[untouched] == SENTINEL).all(), "written outside of out"
    return out


def random_products(m, columns, seed=0, scale=1.0, pitch=None):
    generator = torch.Generator().manual_seed(seed)
    memory = torch.full((m, pitch or columns), float("nan"))
    memory[:, :columns] = torch.randn(m, columns, generator=generator) * scale
    return memory[:, :columns]


def check(products, bias, dtype, n=None, **more):
    n = products.shape[1] if n is None else n
    got = rounded(products, bias, dtype, n=n, **more)
    want = products[:, :n] if bias is None else products[:, :n] + bias.float()
    wrong = (got.view(torch.int16) != want.to(dtype).view(torch.int16)).nonzero()
    assert len(wrong) == 0, (tuple(products.shape), n, more, wrong[0].tolist())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_every_edge(dtype, with_bias):
    sizes = itertools.product([1, 7, 8, 9, 63, 64, 65, 130], [1, 2, 3, 63, 64, 65, 127, 129])
    for m, n in sizes:
        products = random_products(m, -(-n // 64) * 64, seed=1000 * m + n)
        bias = torch.linspace(-3, 3, n).to(dtype) if with_bias else None
        check(products, bias, dtype, n)


@pytest.mark.parametrize("gap, offset", [(0, 0), (2, 0), (1, 0), (0, 1), (3, 1), (2, 2), (5, 3)])
def test_any_address_and_row_stride(gap, offset):
    for n in (64, 66, 71):
        products = random_products(11, 128, seed=n, pitch=192)
        check(products, torch.ones(n).half(), torch.float16, n, gap=gap, offset=offset)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bias_is_added_before_the_one_rounding(dtype):
    """Products a little above and below a tie: a sum of rounded numbers would show."""
    unit = torch.finfo(dtype).eps
    products = 1 + unit * torch.tensor([0.5, 0.5 + 2**-10, 0.5 - 2**-10, 1.5, 0.25, 0.75]).repeat(
        8, 11
    )
    bias = torch.tensor([0.0, unit / 4, -unit / 4]).repeat(22).to(dtype)
    check(products, bias, dtype)
    once = (products + bias.float()).to(dtype)
    assert (products.to(dtype) + bias != once).any(), "the test would not see two roundings"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_that_overflow_and_vanish(dtype):
    inf = float("inf")
    # fp16's largest and its tie with infinity; then fp32's large, its small and its subnormal ones.
    large = [0.0, -0.0, inf, -inf, 65504, 65519.9, 65520, -65520, 3.4e38, 3.39e38]
    small = [1e-8, 2.0**-24, 2.0**-25, 6e-8, -1e-41, 1.0]
    special = torch.tensor(large + small)
    check(special.repeat(3, 4).contiguous(), None, dtype)
    nans = rounded(torch.full((2, 64), float("nan")), None, dtype)
    assert nans.isnan().all()


@pytest.mark.parametrize("seed", range(4))
def test_the_schedule_changes_nothing(seed):
    run = EmulatedRun(seed=seed + 1, resident_blocks=3)
    check(random_products(140, 192, seed), torch.ones(130).half(), torch.float16, 130, run=run)
