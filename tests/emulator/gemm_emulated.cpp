// SPDX-License-Identifier: Apache-2.0
// gemm for Python: addresses and sizes as integers, as csrc/torch would hand them to launch_gemm.
#include "gemm_emulated.h"

#include <pybind11/stl.h>

#include "bindings.h"

namespace padmarlin::emulator {
namespace {

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

Statistics gemm(uintptr_t a, uintptr_t qweight, uintptr_t scales, uintptr_t zeros,
                uintptr_t slice_rows, uintptr_t columns, uintptr_t bias, uintptr_t out,
                uintptr_t partials, uintptr_t counters, int64_t lda, int64_t ldc, int m, int n,
                int k, int padded_n, int padded_k, int scale_rows, int front_pad, int bits,
                Dtype dtype, int dequant, const GemmChoice& choice, const LaunchOptions& options) {
  const GemmArguments args{.a = pointer<const void>(a),
                           .qweight = pointer<const uint32_t>(qweight),
                           .scales = pointer<const void>(scales),
                           .zeros = pointer<const uint16_t>(zeros),
                           .slice_rows = pointer<const int32_t>(slice_rows),
                           .columns = pointer<const int32_t>(columns),
                           .bias = pointer<const void>(bias),
                           .out = pointer<void>(out),
                           .partials = pointer<float>(partials),
                           .counters = pointer<uint32_t>(counters),
                           .lda = lda,
                           .ldc = ldc,
                           .m = m,
                           .n = n,
                           .k = k,
                           .padded_n = padded_n,
                           .padded_k = padded_k,
                           .scale_rows = scale_rows,
                           .front_pad = front_pad,
                           .bits = bits,
                           .dtype = dtype,
                           .dequant = static_cast<Dequant>(dequant)};
  if (bits != 4 && bits != 8) {
    throw py::value_error("gemm: bits is " + std::to_string(bits) + ", expected 4 or 8");
  }
  if (dtype == Dtype::kHalf) {
    return bits == 4 ? gemm_half_w4(args, choice, options) : gemm_half_w8(args, choice, options);
  }
  return bits == 4 ? gemm_bfloat16_w4(args, choice, options)
                   : gemm_bfloat16_w8(args, choice, options);
}

}  // namespace

void bind_gemm(py::module_& module) {
  using py::arg;
  module.def(
      "mma_choice",
      [](int m, int padded_n, int m_steps, int column_warps, int k_groups, int bits,
         bool asymmetric, const py::function& partition_of) {
        const BlockShape shape{m_steps, column_warps, k_groups};
        GemmChoice choice{.shape = shape,
                          .tile_m = block_rows(shape),
                          .tile_n = block_columns(shape),
                          .threads = block_threads(shape),
                          .stages = kStages,
                          .shared_bytes = shared_bytes(bits, asymmetric, shape),
                          .m_tiles = div_up(m, block_rows(shape)),
                          .n_tiles = div_up(padded_n, block_columns(shape)),
                          .band = 2};
        choice.partition = partition_of(choice.m_tiles * choice.n_tiles).cast<Partition>();
        return choice;
      },
      py::kw_only(), arg("m"), arg("padded_n"), arg("m_steps"), arg("column_warps"),
      arg("k_groups"), arg("bits"), arg("asymmetric"), arg("partition_of"),
      "a block of the mma kernel of this shape, and the partition that suits its number of tiles");
  module.def("gemm", &gemm, py::kw_only(), arg("a"), arg("qweight"), arg("scales"),
             arg("zeros") = 0, arg("slice_rows"), arg("columns") = 0, arg("bias") = 0, arg("out"),
             arg("partials") = 0, arg("counters") = 0, arg("lda"), arg("ldc"), arg("m"), arg("n"),
             arg("k"), arg("padded_n"), arg("padded_k"), arg("scale_rows"), arg("front_pad") = 0,
             arg("bits"), arg("dtype"), arg("dequant"), arg("choice"),
             arg("options") = LaunchOptions{});
}

}  // namespace padmarlin::emulator
