// SPDX-License-Identifier: Apache-2.0
// gemm for Python: addresses and sizes as integers, as csrc/torch would hand them to launch_gemm.
#include "gemm_emulated.h"

#include <pybind11/stl.h>

#include <vector>

#include "bindings.h"
#include "cuda/align_kernel.cuh"
#include "wgmma_emulated.h"

namespace padmarlin::emulator {
namespace {

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

Statistics launch_mma(const GemmArguments& args, const GemmChoice& choice,
                      const LaunchOptions& options) {
  if (args.dtype == Dtype::kHalf) {
    return args.bits == 4 ? gemm_half_w4(args, choice, options)
                          : gemm_half_w8(args, choice, options);
  }
  return args.bits == 4 ? gemm_bfloat16_w4(args, choice, options)
                        : gemm_bfloat16_w8(args, choice, options);
}

// As csrc/cuda/wgmma/wgmma.cu describes A to the copy engine.
Statistics launch_wgmma(const GemmArguments& args, const GemmChoice& choice,
                        const LaunchOptions& options) {
  const int64_t pitch = args.m > 1 ? args.lda : round_up(args.k, kTmaElements);
  const TensorMap map = {static_cast<const uint16_t*>(args.a), args.k, args.m, pitch * 2,
                         choice.tile_m};
  if (args.dtype == Dtype::kHalf) {
    return args.bits == 4 ? wgmma_half_w4(args, choice, map, options)
                          : wgmma_half_w8(args, choice, map, options);
  }
  return args.bits == 4 ? wgmma_bfloat16_w4(args, choice, map, options)
                        : wgmma_bfloat16_w8(args, choice, map, options);
}

// As csrc/torch/gemm.cpp has it: A is aligned first where the choice says so.
Statistics align_and_launch(GemmArguments args, const GemmChoice& choice, LaunchOptions options) {
  if (choice.family == Family::kMma) return launch_mma(args, choice, options);
  std::vector<uint4> aligned;
  if (choice.aligns_activations) {
    aligned.assign(aligned_bytes(args) / sizeof(uint4), uint4{~0u, ~0u, ~0u, ~0u});  // NaN
    const AlignArguments pass = {args.a, args.columns, aligned.data(),     args.lda,
                                 args.m, args.k,       aligned_width(args)};
    launch(
        {"align_kernel", static_cast<int>(align_blocks(pass.m, pass.width)), 1, kAlignThreads, 0},
        options,
        [&] { args.columns != nullptr ? align_kernel<true>(pass) : align_kernel<false>(pass); });
    options.regions.push_back(
        {reinterpret_cast<uintptr_t>(aligned.data()), static_cast<size_t>(aligned_bytes(args))});
    args = with_aligned(args, aligned.data());
  }
  return launch_wgmma(args, choice, options);
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
  return align_and_launch(args, choice, options);
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
  module.def(
      "wgmma_choice",
      [](int m, int padded_n, int rows, int bits, bool asymmetric, bool gathers, int copy_bytes,
         const py::function& partition_of) {
        const GemmProblem problem = {.m = m,
                                     .padded_n = padded_n,
                                     .padded_k = kTile,  // the partition's business
                                     .bits = bits,
                                     .asymmetric = asymmetric,
                                     .gathers = gathers,
                                     .copy_bytes = copy_bytes};
        GemmChoice choice = selection::wgmma_choice(problem, rows);
        choice.partition = partition_of(choice.m_tiles * choice.n_tiles).cast<Partition>();
        return choice;
      },
      py::kw_only(), arg("m"), arg("padded_n"), arg("rows"), arg("bits"), arg("asymmetric"),
      arg("gathers"), arg("copy_bytes"), arg("partition_of"),
      "a block of the wgmma kernel of so many rows, and the partition that suits its tiles");
  module.def(
      "copy_bytes",
      [](uintptr_t a, int64_t lda, int64_t m, int64_t k) {
        return copy_bytes(pointer<void>(a), lda, m, k);
      },
      arg("a"), arg("lda"), arg("m"), arg("k"),
      "the widest copy that csrc/cuda/align.h finds A to allow");
  module.def("gemm", &gemm, py::kw_only(), arg("a"), arg("qweight"), arg("scales"),
             arg("zeros") = 0, arg("slice_rows"), arg("columns") = 0, arg("bias") = 0, arg("out"),
             arg("partials") = 0, arg("counters") = 0, arg("lda"), arg("ldc"), arg("m"), arg("n"),
             arg("k"), arg("padded_n"), arg("padded_k"), arg("scale_rows"), arg("front_pad") = 0,
             arg("bits"), arg("dtype"), arg("dequant"), arg("choice"),
             arg("options") = LaunchOptions{});
}

}  // namespace padmarlin::emulator
