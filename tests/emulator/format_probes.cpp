// SPDX-License-Identifier: Apache-2.0
// Launches the consumers of tests/probes/format_consumers.cuh, and shows the map of core/layout.h.
#include <pybind11/stl.h>

#include "../probes/format_consumers.cuh"
#include "bindings.h"

namespace padmarlin::emulator {
namespace {

// (64, 64, 3): word, half and bit of the code at (k, n), from the C++ definition.
Array<int32_t> code_map(int base, int bits) {
  Array<int32_t> map({kTile, kTile, 3});
  auto entries = map.mutable_unchecked<3>();
  for (int k = 0; k < kTile; ++k) {
    for (int n = 0; n < kTile; ++n) {
      const CodePosition position = code_position(base, bits, k, n);
      entries(k, n, 0) = position.word;
      entries(k, n, 1) = position.half;
      entries(k, n, 2) = position.bit;
    }
  }
  return map;
}

using Consumer = void (*)(const uint4*, const uint4*, float*);
using Result = std::pair<Array<float>, Statistics>;

// What the three kernels differ in, seen from outside.
struct Shape {
  const char* name;
  int warps, tiles, activation_rows, out_rows, out_columns;
};
constexpr Shape kOperandB{"operand_b", 1, 1, 16, 16, kTile};
constexpr Shape kOperandA{"operand_a", 1, 1, 8, kTile, 8};
constexpr Shape kRegisterA{"register_a", 4, 2, 8, 2 * kTile, 8};

Result consume(const Shape& shape, Consumer consumer, int bits, const Array<uint32_t>& tiles,
               const Array<uint16_t>& activations, const LaunchOptions& options) {
  expect_size(shape.name, "tiles", tiles, shape.tiles * tile_words(bits));
  expect_size(shape.name, "activations", activations, shape.activation_rows * kTile);
  Array<float> out({shape.out_rows, shape.out_columns});
  const size_t shared_bytes = shape.tiles * tile_bytes(bits) + shape.activation_rows * kTile * 2;
  const auto* const weights = reinterpret_cast<const uint4*>(tiles.data());
  const auto* const rows = reinterpret_cast<const uint4*>(activations.data());
  float* const to = out.mutable_data();
  const Statistics statistics = launch({shape.name, 1, 1, shape.warps * kWarp, shared_bytes},
                                       options, [&] { consumer(weights, rows, to); });
  return {out, statistics};
}

template <Dtype kDtype, int kBits>
Result consume_as(const std::string& name, const Array<uint32_t>& tiles,
                  const Array<uint16_t>& activations, const LaunchOptions& options) {
  const auto with = [&](const Shape& shape, Consumer consumer) {
    return consume(shape, consumer, kBits, tiles, activations, options);
  };
  if (name == kOperandB.name) return with(kOperandB, probes::operand_b_probe<kDtype, kBits>);
  if (name == kOperandA.name) return with(kOperandA, probes::operand_a_probe<kDtype, kBits>);
  if (name == kRegisterA.name) return with(kRegisterA, probes::register_a_probe<kDtype, kBits>);
  throw py::value_error("consume: consumer is '" + name +
                        "', expected 'operand_b', 'operand_a' or 'register_a'");
}

Result consume_tile(const std::string& name, Dtype dtype, int bits, const Array<uint32_t>& tiles,
                    const Array<uint16_t>& activations, const LaunchOptions& options) {
  if (bits != 4 && bits != 8) {
    throw py::value_error("consume: bits is " + std::to_string(bits) + ", expected 4 or 8");
  }
  const auto run =
      dtype == Dtype::kHalf
          ? (bits == 4 ? consume_as<Dtype::kHalf, 4> : consume_as<Dtype::kHalf, 8>)
          : (bits == 4 ? consume_as<Dtype::kBfloat16, 4> : consume_as<Dtype::kBfloat16, 8>);
  return run(name, tiles, activations, options);
}

}  // namespace

void bind_format_probes(py::module_& module) {
  using py::arg;
  module.def("code_map", &code_map, arg("base"), arg("bits"));
  module.def("consume", &consume_tile, arg("consumer"), arg("dtype"), arg("bits"), arg("tiles"),
             arg("activations"), arg("options") = LaunchOptions{});
}

}  // namespace padmarlin::emulator
