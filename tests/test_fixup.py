# SPDX-License-Identifier: Apache-2.0
"""The addition of partial tiles and the primitives under it, on the emulator and on a device: the
same bits as one order of addition, whoever comes last. tests/mutants/fixup.py has the planted bugs.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.sides import Side
from tests.kernels import emulator
from tests.test_conformance import device_side, host_side

RELAXED, ACQUIRE_RELEASE = 0, 3
STREAM_K, SPLIT_K = 0, 1


@pytest.fixture(params=["host", pytest.param("device", marks=pytest.mark.gpu)])
def side(request: pytest.FixtureRequest) -> Side:
    return host_side() if request.param == "host" else device_side()


@pytest.mark.parametrize("order", range(RELAXED, ACQUIRE_RELEASE + 1))
def test_atom_inc_counts_and_wraps(side: Side, order: int) -> None:
    bounds = np.array([2, 2, 2, 2, 2, 0, 0, 1, 1, 1, 5, 0, 2**32 - 1], np.uint32)
    expected, value = [], 2
    for bound in bounds.tolist():
        expected.append(value)
        value = 0 if value >= bound else value + 1
    np.testing.assert_array_equal(side.atom_inc(order, 2, bounds), expected)


def test_atom_inc_leaves_zero_after_bound_plus_one_calls(side: Side) -> None:
    got = side.atom_inc(ACQUIRE_RELEASE, 0, np.array([6] * 14, np.uint32))
    np.testing.assert_array_equal(got, [*range(7), *range(7)])


def test_loads_past_l1_return_what_is_there(side: Side) -> None:
    values = np.random.default_rng(1).standard_normal(512).astype(np.float32)
    np.testing.assert_array_equal(side.ld_global(values), values)


def test_a_kernel_that_may_overlap_reads_what_is_there(side: Side) -> None:
    values = np.random.default_rng(3).standard_normal(512).astype(np.float32)
    np.testing.assert_array_equal(side.overlap(values), values)


def expected_sums(partition, terms: np.ndarray) -> np.ndarray:
    """fp32, parts in the order of K, each its k-tiles in the order of K."""
    totals = np.zeros((terms.shape[0], terms.shape[2]), np.float32)
    rows = partition.segments()
    for _, tile, begin, end, split, *_ in rows[np.lexsort((rows[:, 4], rows[:, 1]))]:
        part = np.zeros(terms.shape[2], np.float32)
        for k in range(begin, end):
            part += terms[tile, k]
        totals[tile] = part if split == 0 else totals[tile] + part
    return totals


CASES = [
    (STREAM_K, 1, 1, 1, 1),
    (STREAM_K, 5, 7, 3, 1),
    (STREAM_K, 3, 4, 11, 1),
    (STREAM_K, 1, 24, 24, 1),
    (SPLIT_K, 4, 6, 12, 3),
    (SPLIT_K, 9, 5, 2, 4),
    (SPLIT_K, 2, 3, 64, 16),
]


@pytest.mark.parametrize("kind, tiles, k_tiles, blocks, splits", CASES)
def test_sums_have_the_bits_of_one_order(
    side: Side,
    kind: int,
    tiles: int,
    k_tiles: int,
    blocks: int,
    splits: int,
) -> None:
    rng = np.random.default_rng([2, kind, tiles, k_tiles])
    shape = (tiles, k_tiles, 768)
    # Of sizes so different that nearly every other order shows.
    terms = (rng.standard_normal(shape) * 2.0 ** rng.integers(0, 24, shape)).astype(np.float32)
    native = emulator()
    partition = (
        native.stream_k(tiles, k_tiles, blocks, tiles)
        if kind == STREAM_K
        else native.split_k(tiles, k_tiles, blocks, splits)
    )
    expected = expected_sums(partition, terms)
    for turn in range(20):
        got = side.fixup(kind, blocks, splits, terms)
        wrong = np.argwhere(got != expected)
        assert not wrong.size, (turn, wrong[0], got[tuple(wrong[0])], expected[tuple(wrong[0])])
