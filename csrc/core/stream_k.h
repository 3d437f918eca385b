// SPDX-License-Identifier: Apache-2.0
// How output tiles x k-tiles are cut over the blocks of a grid, and where partial tiles are kept
// (docs/kernel-schedule.md). Arithmetic only, no tables: host and device ask the same functions.
// Pure constexpr C++: no CUDA, no torch; knows nothing of a tile's shape.
#pragma once

#include <cstdint>

namespace padmarlin {

// Every tile is computed in one of three ways.
//   stream-K       tiles [0, streamed): their k-tiles, laid end to end, are cut into equal runs,
//   one
//                  for each block, wherever the cuts fall
//   data-parallel  tiles [streamed, tiles), splits = 1: whole, block b takes every blocks-th one
//   split-K        tiles [streamed, tiles), splits > 1: every tile in the same `splits` parts of K,
//                  whatever the number of tiles. `scattered` parts go to different blocks;
//                  otherwise the block that has a tile computes its parts one after another.
// The parts of a tile are added in the order of K. Their boundaries alone decide the bits.
struct Partition {
  int tiles;    // output tiles
  int k_tiles;  // of each
  int blocks;   // of the grid, each with at least one segment (one block if there are no tiles)
  int streamed = 0;
  int run = 0, longer = 0;  // k-tiles per block (stream-K) or part (split-K); the first `longer`
                            // take one more
  int splits = 1;           // > 1 only if streamed is 0
  bool scattered = false;
};

// A run of k-tiles of one output tile.
struct Segment {
  int tile;
  int k_begin, k_end;  // k-tiles, never empty
  int split, splits;   // which part of the tile this is, and of how many; in the order of K
  int first_slot;      // see partial_slot
  int counter;         // of this tile among Partition's num_counters

  constexpr bool whole() const { return splits == 1; }
};

constexpr Partition data_parallel(int tiles, int k_tiles, int blocks) {
  const int used = blocks < tiles ? blocks : tiles;
  return {.tiles = tiles, .k_tiles = k_tiles, .blocks = used < 1 ? 1 : used};
}

// The device counts k-tiles in 32 bits; beyond that nothing is streamed.
constexpr bool can_stream(int streamed, int k_tiles) {
  return streamed > 0 && k_tiles > 0 && static_cast<int64_t>(streamed) * k_tiles <= INT32_MAX;
}

// Streams the first `streamed` tiles. Whole tiles come second: the sums of partial tiles are then
// hidden by what others still compute, and all blocks end a whole tile at the same time.
constexpr Partition stream_k(int tiles, int k_tiles, int blocks, int streamed) {
  if (!can_stream(streamed, k_tiles)) return data_parallel(tiles, k_tiles, blocks);
  const int units = streamed * k_tiles;
  const int used = blocks < 1 ? 1 : blocks < units ? blocks : units;
  return {.tiles = tiles,
          .k_tiles = k_tiles,
          .blocks = used,
          .streamed = streamed,
          .run = units / used,
          .longer = units % used};
}

// Beyond this many parts for each block, a block computes all parts of a tile: that bounds the
// partial tiles that exist at a time, and costs no balance worth having.
constexpr int kScatteredPerBlock = 4;

constexpr Partition split_k(int tiles, int k_tiles, int blocks, int splits) {
  if (splits > k_tiles) splits = k_tiles;
  if (splits <= 1) return data_parallel(tiles, k_tiles, blocks);
  const int64_t parts = static_cast<int64_t>(tiles) * splits;
  const bool scattered = parts <= static_cast<int64_t>(kScatteredPerBlock) * blocks;
  const int items = scattered ? static_cast<int>(parts) : tiles;
  const int used = blocks < items ? blocks : items;
  return {.tiles = tiles,
          .k_tiles = k_tiles,
          .blocks = used < 1 ? 1 : used,
          .run = k_tiles / splits,
          .longer = k_tiles % splits,
          .splits = splits,
          .scattered = scattered};
}

// ---- stream-K in units of one k-tile of one tile

constexpr int first_unit(const Partition& p, int block) {
  return block * p.run + (block < p.longer ? block : p.longer);
}

constexpr int block_of_unit(const Partition& p, int unit) {
  const int boundary = p.longer * (p.run + 1);
  return unit < boundary ? unit / (p.run + 1) : p.longer + (unit - boundary) / p.run;
}

// Whether a cut falls inside a tile.
constexpr bool cuts_tiles(const Partition& p) {
  return p.streamed > 0 && (p.longer != 0 || p.run % p.k_tiles != 0);
}

// ---- what a block computes, in this order

constexpr int num_streamed_segments(const Partition& p, int block) {
  if (p.streamed == 0) return 0;
  const int begin = first_unit(p, block), end = first_unit(p, block + 1);
  return (end - 1) / p.k_tiles - begin / p.k_tiles + 1;
}

constexpr int num_segments(const Partition& p, int block) {
  const int items = (p.tiles - p.streamed) * (p.scattered ? p.splits : 1);
  // Mostly one at most: a block begins with this, and a division takes over a hundred clocks.
  const int own = items <= block              ? 0
                  : items - block <= p.blocks ? 1
                                              : (items - 1 - block) / p.blocks + 1;
  return num_streamed_segments(p, block) + own * (p.scattered ? 1 : p.splits);
}

constexpr Segment streamed_segment(const Partition& p, int block, int index) {
  const int begin = first_unit(p, block), end = first_unit(p, block + 1);
  const int tile = begin / p.k_tiles + index, origin = tile * p.k_tiles;
  const int k_begin = begin > origin ? begin - origin : 0;
  const int k_end = end - origin < p.k_tiles ? end - origin : p.k_tiles;
  if (k_begin == 0 && k_end == p.k_tiles) return {tile, 0, k_end, 0, 1, 0, 0};
  const int first = block_of_unit(p, origin), last = block_of_unit(p, origin + p.k_tiles - 1);
  return {.tile = tile,
          .k_begin = k_begin,
          .k_end = k_end,
          .split = block - first,
          .splits = last - first + 1,
          .first_slot = 2 * first,
          .counter = first};  // the one tile that begins in block `first` and ends beyond it
}

// The index-th segment of a block.
constexpr Segment segment(const Partition& p, int block, int index) {
  const int streamed = num_streamed_segments(p, block);
  if (index < streamed) return streamed_segment(p, block, index);
  const int turn = index - streamed;
  if (p.splits == 1) {
    return {p.streamed + block + turn * p.blocks, 0, p.k_tiles, 0, 1, 0, 0};
  }
  const int item = p.scattered ? block + turn * p.blocks : 0;
  const int tile = p.scattered ? item / p.splits : block + turn / p.splits * p.blocks;
  const int split = p.scattered ? item % p.splits : turn % p.splits;
  const int place = p.scattered ? tile : block;  // a block's tiles share slots: one at a time
  const auto cut = [&](int s) { return s * p.run + (s < p.longer ? s : p.longer); };
  return {tile, cut(split), cut(split + 1), split, p.splits, place * p.splits, place};
}

// The same as segment(p, block, 0), with fewer divisions: a kernel's first load waits for them.
constexpr Segment first_segment(const Partition& p, int block) {
  return p.streamed != 0 ? streamed_segment(p, block, 0) : segment(p, block, 0);
}

// ---- where partial tiles are kept while they wait to be added

// Streamed: a block has at most two partial tiles, one that it continues (slot 2b) and one that it
// begins (2b + 1). Part 0 of a tile is what its first block began.
constexpr int partial_slot(const Partition& p, const Segment& s, int split) {
  if (p.splits > 1) return s.first_slot + split;
  return s.first_slot + 2 * split + (split == 0 ? 1 : 0);
}

constexpr int num_partial_slots(const Partition& p) {
  if (p.splits > 1) return (p.scattered ? p.tiles : p.blocks) * p.splits;
  return cuts_tiles(p) ? 2 * p.blocks : 0;
}

constexpr int num_counters(const Partition& p) {
  if (p.splits > 1) return p.scattered ? p.tiles : p.blocks;
  return cuts_tiles(p) ? p.blocks : 0;
}

// ---- which tile a number means

struct TilePosition {
  int m, n;
};

// Tiles go in bands of `band` row tiles; inside a band rows vary fastest. Blocks that run together
// then read few weights and few activations, which meet in L2.
constexpr TilePosition tile_position(int tile, int m_tiles, int n_tiles, int band) {
  if (m_tiles == 1) return {0, tile};  // of few rows: no division stands before the first load
  const int first = m_tiles <= band ? 0 : tile / (band * n_tiles) * band;
  const int rows = m_tiles - first < band ? m_tiles - first : band;
  const int inside = tile - first * n_tiles;
  return {first + inside % rows, inside / rows};
}

}  // namespace padmarlin
