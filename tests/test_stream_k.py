# SPDX-License-Identifier: Apache-2.0
"""Partitions of csrc/core/stream_k.h: every k-tile of every tile once, in order, slots disjoint."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.kernels import emulator

native = emulator()

BLOCK, TILE, K_BEGIN, K_END, SPLIT, SPLITS, SLOT, COUNTER = range(8)
INT32_MAX = 2**31 - 1


def check(p, what: tuple) -> np.ndarray:
    """Holds all that a kernel relies on; returns the segments."""
    rows = p.segments()
    assert (rows[:, K_BEGIN] < rows[:, K_END]).all(), what
    assert (rows[:, TILE] >= 0).all(), what
    assert (rows[:, TILE] < p.tiles).all(), what
    if p.tiles:
        assert set(rows[:, BLOCK]) == set(range(p.blocks)), (what, "a block without work")

    # By tile and then k: the segments of a tile follow each other without gap or overlap, and are
    # numbered in that order.
    rows = rows[np.lexsort((rows[:, K_BEGIN], rows[:, TILE]))]
    first = np.append(True, rows[1:, TILE] != rows[:-1, TILE])[: len(rows)]
    last = np.append(first[1:], True)[: len(rows)]
    assert first.sum() == p.tiles, (what, "a tile without segments")
    assert (rows[first, K_BEGIN] == 0).all(), what
    assert (rows[last, K_END] == p.k_tiles).all(), what
    inner = ~first[1:]
    assert (rows[1:][inner, K_BEGIN] == rows[:-1][inner, K_END]).all(), what
    assert (rows[1:][inner, SPLIT] == rows[:-1][inner, SPLIT] + 1).all(), what
    assert (rows[first, SPLIT] == 0).all(), what
    of_tile = np.cumsum(first) - 1
    assert (rows[:, SPLITS] == (rows[last, SPLIT] + 1)[of_tile]).all(), what

    partial = rows[rows[:, SPLITS] > 1]
    if len(partial):
        assert partial[:, SLOT].min() >= 0, what
        assert partial[:, SLOT].max() < p.num_partial_slots, what
        assert partial[:, COUNTER].min() >= 0, what
        assert partial[:, COUNTER].max() < p.num_counters, what
    # A slot, or a counter, serves two tiles only if one block computes both, all of each.
    for column in (SLOT, COUNTER):
        users: dict[int, set[tuple[int, int]]] = {}
        for row in partial:
            users.setdefault(row[column], set()).add((row[TILE], row[BLOCK]))
        for number, pairs in users.items():
            tiles, blocks = {tile for tile, _ in pairs}, {block for _, block in pairs}
            assert len(tiles) == 1 or len(blocks) == 1, (what, column, number, pairs)
    slots_of_tile = {(row[TILE], row[SLOT]) for row in partial}
    assert len(slots_of_tile) == len(partial), (what, "two parts of a tile share a slot")
    return rows


SIZES = [*range(1, 8), 13, 16]


@pytest.mark.parametrize("k_tiles", SIZES)
def test_stream_k_covers_every_k_tile_once(k_tiles):
    for tiles, blocks in itertools.product(SIZES, [*range(1, 12), 17, 40]):
        for streamed in {tiles, tiles // 2 + 1}:
            p = native.stream_k(tiles, k_tiles, blocks, streamed)
            rows = check(p, ("stream_k", tiles, k_tiles, blocks, streamed))
            mine = rows[rows[:, TILE] < streamed]
            lengths = np.bincount(mine[:, BLOCK], mine[:, K_END] - mine[:, K_BEGIN])
            assert lengths.max() - lengths.min() <= 1, (tiles, k_tiles, blocks, streamed)


@pytest.mark.parametrize("k_tiles", SIZES)
def test_split_k_covers_every_k_tile_once_with_the_same_cuts_everywhere(k_tiles):
    for tiles, blocks, splits in itertools.product(SIZES, [1, 2, 3, 7, 17, 40], range(1, 6)):
        p = native.split_k(tiles, k_tiles, blocks, splits)
        rows = check(p, ("split_k", tiles, k_tiles, blocks, splits))
        cuts = {tuple(rows[rows[:, TILE] == tile, K_END]) for tile in range(tiles)}
        assert len(cuts) == 1, (tiles, k_tiles, blocks, splits, cuts)
        alone = native.split_k(1, k_tiles, 40, splits)
        assert cuts == {tuple(check(alone, "one tile")[:, K_END])}, (tiles, k_tiles, blocks, splits)
        assert p.num_partial_slots <= max(4, splits) * blocks


def test_data_parallel_has_whole_tiles_only():
    for tiles, k_tiles, blocks in itertools.product(SIZES, SIZES, [1, 2, 7, 40]):
        p = native.data_parallel(tiles, k_tiles, blocks)
        rows = check(p, ("data_parallel", tiles, k_tiles, blocks))
        assert (rows[:, SPLITS] == 1).all()
        assert (p.num_partial_slots, p.num_counters) == (0, 0)
        turns = np.bincount(rows[:, BLOCK])
        assert turns.max() - turns.min() <= 1


def test_whole_tiles_take_no_workspace():
    """Cuts that all fall between tiles."""
    p = native.stream_k(8, 16, 4, 8)
    assert (p.num_partial_slots, p.num_counters) == (0, 0)
    assert (check(p, "aligned")[:, SPLITS] == 1).all()


def test_no_tiles_is_one_idle_block():
    for p in (
        native.data_parallel(0, 4, 9),
        native.stream_k(0, 4, 9, 0),
        native.split_k(0, 4, 9, 3),
    ):
        assert p.blocks == 1
        assert len(p.segments()) == 0


@pytest.mark.parametrize(
    "tiles, k_tiles, blocks",
    [(1, INT32_MAX // 64, 264), (4, 2**29 - 1, 7), (2**20 + 1, 2047, 264), (33, 2**25, 132)],
)
def test_large_products_do_not_overflow(tiles, k_tiles, blocks):
    """The last blocks, where the numbers are largest, by arithmetic without a width."""
    p = native.stream_k(tiles, k_tiles, blocks, tiles)
    assert p.streamed == tiles
    units = tiles * k_tiles
    run, longer = divmod(units, blocks)
    for block in {0, max(longer - 1, 0), longer, blocks - 2, blocks - 1} & set(range(blocks)):
        begin = block * run + min(block, longer)
        end = begin + run + (block < longer)
        got = p.segment_sizes(block)
        assert got[0][0] == begin // k_tiles, (tiles, k_tiles, block)
        assert got[-1][0] == (end - 1) // k_tiles, (tiles, k_tiles, block)
        assert sum(size for _, size in got) == end - begin, (tiles, k_tiles, block)


def test_more_than_31_bits_of_k_tiles_are_not_streamed():
    p = native.stream_k(2**20, 2**12, 264, 2**20)
    assert (p.streamed, p.splits, p.num_counters) == (0, 1, 0)


@pytest.mark.parametrize("band", [1, 3, 8, 100])
def test_every_tile_has_one_position(band):
    for m_tiles, n_tiles in itertools.product([1, 2, 5, 8, 9, 17], [1, 2, 7]):
        seen = [
            native.tile_position(tile, m_tiles, n_tiles, band) for tile in range(m_tiles * n_tiles)
        ]
        assert sorted(seen) == list(itertools.product(range(m_tiles), range(n_tiles)))
