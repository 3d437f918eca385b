// SPDX-License-Identifier: Apache-2.0
// csrc/torch/gemm.cpp and scratch.cpp as they are, for CPU tensors: the checks, the dispatcher, the
// chunks, and torch's matmul (a test registers one for the CPU). Their kernels are in kernels.cpp;
// torch/device.h is the one of benchmarks/empty_op. A fused kernel only marks its rows.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#define is_cuda is_cpu  // after torch's headers: only the checks ask something else
#include "torch/gemm.cpp"
#include "torch/scratch.cpp"

namespace padmarlin {

int launch_gemm(const GemmArguments& args, const GemmChoice& choice, void*) {
  constexpr uint16_t kMark = 0x4400, kWrong = 0xc400;  // 4 and -4 in fp16
  const uint16_t mark = choice.family == Family::kScratch ? kWrong : kMark;
  for (int row = 0; row < args.m; ++row) {
    for (int n = 0; n < args.n; ++n) static_cast<uint16_t*>(args.out)[row * args.ldc + n] = mark;
  }
  return 0;
}

int align_activations(const GemmArguments&, void*, void*) { return 0; }

uint32_t* split_counters(const char*, int, void*, int, int) { return nullptr; }

// The scratch with chunks of so many rows and columns.
bool by_chunks(Tensor out, Tensor a, Tensor qweight, Tensor scales, std::optional<Tensor> zeros,
               Tensor slice_rows, std::optional<Tensor> columns, std::optional<Tensor> bias,
               int64_t k, int64_t n, int64_t bits, int64_t front_pad, int64_t dequant,
               bool /*batch_invariant*/, int64_t chunk_rows, int64_t chunk_columns) {
  const PackedWeight weight = {"by_chunks", qweight, scales, zeros,     slice_rows, columns,
                               k,           n,       bits,   front_pad, dequant};
  const GemmProblem problem = {.m = static_cast<int>(a.size(0)),
                               .padded_n = static_cast<int>(weight.padded_n()),
                               .padded_k = static_cast<int>(weight.padded_k()),
                               .bits = static_cast<int>(bits)};
  const GemmChoice choice =
      scratch::chunks(problem, static_cast<int>(chunk_rows), static_cast<int>(chunk_columns));
  return multiply_by_scratch({a, weight, bias, out, rows_of(out).stride}, choice, nullptr);
}

}  // namespace padmarlin

STABLE_TORCH_LIBRARY(padmarlin_host, m) {
  m.def("gemm(Tensor a, " PADMARLIN_WEIGHT_SCHEMA ") -> Tensor");
  m.def("gemm_out(Tensor(a!) out, Tensor a, " PADMARLIN_WEIGHT_SCHEMA ") -> ()");
  m.def("by_chunks(Tensor(a!) out, Tensor a, " PADMARLIN_WEIGHT_SCHEMA
        ", int chunk_rows, int chunk_columns) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(padmarlin_host, CPU, m) {
  m.impl("gemm", TORCH_BOX(&padmarlin::gemm));
  m.impl("gemm_out", TORCH_BOX(&padmarlin::gemm_out));
  m.impl("by_chunks", TORCH_BOX(&padmarlin::by_chunks));
}
