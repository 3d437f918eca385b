// SPDX-License-Identifier: Apache-2.0
// csrc/core/stream_k.h for Python: every segment of a partition as a row of numbers.
#include <pybind11/stl.h>

#include <vector>

#include "bindings.h"
#include "core/stream_k.h"

namespace padmarlin::emulator {
namespace {

constexpr int kColumns = 8;

// Rows of (block, tile, k_begin, k_end, split, splits, slot, counter), in the order in which the
// blocks compute them; slot and counter are -1 of a whole tile.
Array<int> segments(const Partition& p) {
  std::vector<int> rows;
  for (int block = 0; block < p.blocks; ++block) {
    for (int i = 0; i < num_segments(p, block); ++i) {
      const Segment s = segment(p, block, i);
      const int slot = s.whole() ? -1 : partial_slot(p, s, s.split);
      const int counter = s.whole() ? -1 : s.counter;
      rows.insert(rows.end(),
                  {block, s.tile, s.k_begin, s.k_end, s.split, s.splits, slot, counter});
    }
  }
  Array<int> table({static_cast<ssize_t>(rows.size()) / kColumns, static_cast<ssize_t>(kColumns)});
  std::copy(rows.begin(), rows.end(), table.mutable_data());
  return table;
}

}  // namespace

void bind_schedule(py::module_& module) {
  using py::arg;
  py::class_<Partition>(module, "Partition")
      .def_readonly("tiles", &Partition::tiles)
      .def_readonly("k_tiles", &Partition::k_tiles)
      .def_readonly("blocks", &Partition::blocks)
      .def_readonly("streamed", &Partition::streamed)
      .def_readonly("splits", &Partition::splits)
      .def_readonly("scattered", &Partition::scattered)
      .def_property_readonly("num_partial_slots", &num_partial_slots)
      .def_property_readonly("num_counters", &num_counters)
      .def("segments", &segments)
      .def("segment_sizes", [](const Partition& p, int block) {
        std::vector<std::pair<int, int>> sizes;  // (tile, k-tiles) of one block
        for (int i = 0; i < num_segments(p, block); ++i) {
          const Segment s = segment(p, block, i);
          sizes.emplace_back(s.tile, s.k_end - s.k_begin);
        }
        return sizes;
      });
  module.def("data_parallel", &data_parallel, arg("tiles"), arg("k_tiles"), arg("blocks"));
  module.def("stream_k", &stream_k, arg("tiles"), arg("k_tiles"), arg("blocks"), arg("streamed"));
  module.def("split_k", &split_k, arg("tiles"), arg("k_tiles"), arg("blocks"), arg("splits"));
  module.def(
      "tile_position",
      [](int tile, int m_tiles, int n_tiles, int band) {
        const TilePosition at = tile_position(tile, m_tiles, n_tiles, band);
        return std::pair(at.m, at.n);
      },
      arg("tile"), arg("m_tiles"), arg("n_tiles"), arg("band"));
}

}  // namespace padmarlin::emulator
