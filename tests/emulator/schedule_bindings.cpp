// SPDX-License-Identifier: Apache-2.0
// csrc/core/stream_k.h and select_gemm.h for Python: every segment of a partition as a row of
// numbers, every choice as an object.
#include <pybind11/stl.h>

#include <vector>

#include "bindings.h"
#include "core/choice_cache.h"
#include "core/devices.h"
#include "core/explain.h"

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

// Tables are those that a test makes up, never the committed one.
void bind_measurements(py::module_& module) {
  using py::arg;
  using Table = std::vector<Measurement>;
  py::class_<Measurement>(module, "Measurement")
      .def(py::init([](int architecture, int num_sms, int dram_gbps, int bits, bool aligns,
                       int wgmma_from, int scratch_from) {
             return Measurement{architecture, num_sms,      dram_gbps,    bits,  aligns,
                                wgmma_from,   scratch_from, "2026-01-01", "abc", "made_up"};
           }),
           py::kw_only(), arg("architecture") = 90, arg("num_sms") = 132, arg("dram_gbps") = 4800,
           arg("bits") = 4, arg("aligns") = false, arg("wgmma_from"), arg("scratch_from") = kNever);
  module.attr("kNever") = kNever;
  module.def(
      "choose",
      [](const GemmProblem& problem, const Device& device, const Table& table) {
        return select_gemm(problem, device, table);
      },
      arg("problem"), arg("device"), arg("measurements") = Table{},
      "select_gemm of csrc/core/select_gemm.h");
  module.def("is_allowed", &is_allowed, arg("problem"), arg("device"));
  module.def("why_not_forced", &why_not_forced, arg("problem"), arg("device"));
  module.def(
      "scratch_bytes",
      [](const GemmProblem& problem, const GemmChoice& choice) {
        return std::pair(scratch_weight_bytes(problem, choice), scratch_product_bytes(choice));
      },
      arg("problem"), arg("choice"), "Of the weights, and of the products.");
  module.attr("kMaxWeightBytes") = scratch::kMaxWeightBytes;
  module.attr("kMaxProductBytes") = scratch::kMaxProductBytes;
  module.def(
      "explain",
      [](const GemmProblem& problem, const Device& device, const Table& table) {
        return explain({problem, problem.padded_k, problem.padded_n, 1000}, device, "a GPU", table);
      },
      arg("problem"), arg("device"), arg("measurements") = Table{});
  // The committed rows: (architecture, num_sms, dram_gbps, bits, aligns, wgmma_from, scratch_from,
  // file).
  py::list committed;
  for (const Measurement& row : kMeasured) {
    committed.append(py::make_tuple(row.architecture, row.num_sms, row.dram_gbps, row.bits,
                                    row.aligns, row.wgmma_from, row.scratch_from,
                                    std::string(row.file)));
  }
  module.attr("measured") = committed;
}

void bind_selection(py::module_& module) {
  using py::arg;
  py::class_<Device>(module, "Device")
      .def(py::init([](int num_sms, int architecture, int dram_gbps, bool wgmma) {
             Device device = device_of(num_sms, architecture, dram_gbps);
             device.wgmma = wgmma;
             return device;
           }),
           py::kw_only(), arg("num_sms"), arg("architecture"), arg("dram_gbps"),
           arg("wgmma") = false)
      .def_readonly("num_sms", &Device::num_sms)
      .def_readonly("architecture", &Device::architecture)
      .def_readonly("dram_gbps", &Device::dram_gbps)
      .def_readonly("shared_bytes", &Device::shared_bytes)
      .def_readonly("sm_shared_bytes", &Device::sm_shared_bytes);
  py::dict named;
  for (const NamedDevice& known : kNamedDevices) {
    named[py::str(std::string(known.name))] = py::cast(known.device);
  }
  module.attr("named_devices") = named;

  py::enum_<Family>(module, "Family")
      .value("MMA", Family::kMma)
      .value("WGMMA", Family::kWgmma)
      .value("SCRATCH", Family::kScratch);
  py::class_<GemmChoice>(module, "GemmChoice")
      .def("__repr__", &describe)
      .def_readonly("family", &GemmChoice::family)
      .def_readonly("tile_m", &GemmChoice::tile_m)
      .def_readonly("tile_n", &GemmChoice::tile_n)
      .def_readonly("threads", &GemmChoice::threads)
      .def_readonly("stages", &GemmChoice::stages)
      .def_readonly("shared_bytes", &GemmChoice::shared_bytes)
      .def_readonly("blocks_per_sm", &GemmChoice::blocks_per_sm)
      .def_readonly("partition", &GemmChoice::partition)
      .def_readonly("m_tiles", &GemmChoice::m_tiles)
      .def_readonly("n_tiles", &GemmChoice::n_tiles)
      .def_readonly("band", &GemmChoice::band)
      .def_readonly("aligns_activations", &GemmChoice::aligns_activations)
      .def_property_readonly("m_steps", [](const GemmChoice& c) { return c.shape.m_steps; })
      .def_property_readonly("column_warps",
                             [](const GemmChoice& c) { return c.shape.column_warps; })
      .def_property_readonly("k_groups", [](const GemmChoice& c) { return c.shape.k_groups; })
      .def_property_readonly("partials_bytes",
                             [](const GemmChoice& c) { return partials_bytes(c); });
  py::class_<GemmProblem>(module, "GemmProblem")
      .def(py::init([](int m, int padded_n, int padded_k, int bits, bool asymmetric, int dequant,
                       bool gathers, int copy_bytes, bool batch_invariant,
                       std::optional<Family> forced, bool forbids_scratch) {
             return GemmProblem{.m = m,
                                .padded_n = padded_n,
                                .padded_k = padded_k,
                                .bits = bits,
                                .asymmetric = asymmetric,
                                .dequant = static_cast<Dequant>(dequant),
                                .gathers = gathers,
                                .copy_bytes = copy_bytes,
                                .batch_invariant = batch_invariant,
                                .forced = forced,
                                .forbids_scratch = forbids_scratch};
           }),
           py::kw_only(), arg("m"), arg("padded_n"), arg("padded_k"), arg("bits") = 4,
           arg("asymmetric") = false, arg("dequant") = 0, arg("gathers") = false,
           arg("copy_bytes") = 16, arg("batch_invariant") = false, arg("forced") = std::nullopt,
           arg("forbids_scratch") = false);
  bind_measurements(module);
  py::class_<ChoiceCache>(module, "ChoiceCache")
      .def(py::init([] { return ChoiceCache(Measurements{}); }))
      .def("choose", &ChoiceCache::choose, arg("problem"), arg("device"),
           py::return_value_policy::copy);
  module.def(
      "predicted_sweep",
      [](GemmProblem problem, const Device& device, int last_m) {
        Array<double> us({static_cast<ssize_t>(last_m)});
        for (int m = 1; m <= last_m; ++m) {
          problem.m = m;
          const GemmChoice choice = select_gemm(problem, device, Measurements{});
          us.mutable_data()[m - 1] = predicted_us(problem, device, choice);
        }
        return us;
      },
      arg("problem"), arg("device"), arg("last_m"), "for m = 1 .. last_m");
  module.def("mma_rows", &mma_rows, arg("problem"));
  py::list kinds;
  for (const counts::Kind& kind : counts::kKinds) {
    kinds.append(py::make_tuple(kind.bits, static_cast<int>(kind.dequant), kind.asymmetric,
                                kind.mma_extra, kind.wgmma_turn));
  }
  module.attr("instruction_counts") = kinds;  // core/instruction_counts.h
  module.attr("wgmma_block_rows") =
      std::vector<int>(std::begin(wgmma::kBlockRows), std::end(wgmma::kBlockRows));
  module.def("is_computable", &is_computable, arg("problem"));
  module.def(
      "predicted_scratch_us",
      [](const GemmProblem& problem, const Device& device, const GemmChoice& choice) {
        return predicted_scratch_cost(problem, device, choice).total_us();
      },
      arg("problem"), arg("device"), arg("choice"));
  module.def(
      "predicted_us",
      [](const GemmProblem& problem, const Device& device, const GemmChoice& choice) {
        const Cost cost = predicted_cost(problem, device, choice);
        py::dict us;
        us["memory"] = cost.memory_us, us["tensor"] = cost.tensor_us, us["issue"] = cost.issue_us;
        us["fixup"] = cost.fixup_us, us["align"] = cost.align_us, us["total"] = cost.total_us();
        return us;
      },
      arg("problem"), arg("device"), arg("choice"));
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
  bind_selection(module);
}

}  // namespace padmarlin::emulator
