# SPDX-License-Identifier: Apache-2.0
"""csrc/core/scratch.h: chunks that cover every row and column once, within their bounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.kernels import emulator
from tests.test_select_gemm import DEVICES, QWEN2_72B, RAGGED, ROWS, device, problem, up

native = emulator()


def chunks(m: int, k: int, n: int, name: str, **more):
    """The choice, and the (first, end) of its chunks of rows and of columns."""
    asked = problem(m, k, n, forced=native.Family.SCRATCH, **more)
    choice = native.choose(asked, device(name))
    what = (m, k, n, name, choice)
    assert choice.family == native.Family.SCRATCH, what
    rows = [(i * choice.tile_m, min((i + 1) * choice.tile_m, m)) for i in range(choice.m_tiles)]
    columns = [
        (i * choice.tile_n, min((i + 1) * choice.tile_n, up(n))) for i in range(choice.n_tiles)
    ]
    assert all(first < end for first, end in [*rows, *columns]), what
    assert rows[-1][1] == m and columns[-1][1] == up(n), what
    assert choice.tile_n % 64 == 0, what
    weights, products = native.scratch_bytes(asked, choice)
    assert weights == 2 * choice.tile_n * up(k) <= native.kMaxWeightBytes, what
    assert products == 4 * choice.tile_m * choice.tile_n <= native.kMaxProductBytes, what
    # What a fused kernel takes out of the workspace.
    assert choice.partials_bytes == 0 and choice.partition.num_counters == 0, what
    assert native.predicted_scratch_us(asked, device(name), choice) > 0, what
    return choice, rows, columns


@pytest.mark.parametrize("name", DEVICES)
def test_every_row_and_column_is_in_one_chunk(name):
    for (k, n), m in itertools.product([*QWEN2_72B, *RAGGED], ROWS):
        chunks(m, k, n, name)


@pytest.mark.parametrize("seed", range(4))
def test_random_problems(seed):
    rng = np.random.default_rng(seed)
    for _ in range(500):
        m, k, n = (int(2 ** rng.uniform(0, top)) for top in (24, 21, 22))
        chunks(m, k, n, DEVICES[rng.integers(len(DEVICES))])


@pytest.mark.parametrize(
    "m, k, n",
    [
        (1, 64, 64),
        (2**31 - 256, 64, 64),
        (100_000, 64, 2**24),  # the most columns of a chunk: their products fit with 256 rows
        (4096, 2**21, 4096),  # one tile of columns
        (4096, 2**21 - 64, 128),
        (300, 2**19 + 64, 1000),  # fewer columns than a tile of cuBLAS
    ],
)
def test_the_edges_of_the_bounds(m, k, n):
    for name in DEVICES:
        chunks(m, k, n, name)


def test_the_chunks_of_known_layers():
    """What the prediction weighs: small chunks stay in L2, large ones give every SM a tile."""
    # 1024 rows x 1408 columns, 24 MB of weights, would be 48 tiles for 132 SMs.
    choice, _, columns = chunks(1024, 8192, 8192, "h200")
    assert len(columns) == 1 and choice.tile_m == 1024
    # With rows enough, weights that stay in L2 cost less than to write them out.
    choice, *_ = chunks(16384, 8192, 10240, "h200")
    assert choice.tile_n < 10240 and choice.n_tiles > 1
    # Products never leave their bound: rows are cut inside a chunk of columns.
    choice, rows, columns = chunks(100_000, 1024, 8192, "h200")
    assert len(rows) > 1
