// SPDX-License-Identifier: Apache-2.0
// csrc/torch/gemm.cpp and scratch.cpp as they are, for CPU tensors and without a device or a
// launch: what their checks and their allocations cost. torch/device.h is the one beside this file.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#define is_cuda is_cpu  // after torch's headers: only the checks ask something else
#include "torch/gemm.cpp"
#include "torch/scratch.cpp"

namespace padmarlin {

int launch_gemm(const GemmArguments&, const GemmChoice&, void*) { return 0; }

int align_activations(const GemmArguments&, void*, void*) { return 0; }

int launch_dequantize(const DequantizeArguments&, void*) { return 0; }

int launch_round(const RoundArguments&, void*) { return 0; }

uint32_t* split_counters(const char*, int, void*, int, int) { return nullptr; }

}  // namespace padmarlin

STABLE_TORCH_LIBRARY(padmarlin_checked, m) {
  m.def("gemm(Tensor a, " PADMARLIN_WEIGHT_SCHEMA ") -> Tensor");
  m.def("gemm_out(Tensor(a!) out, Tensor a, " PADMARLIN_WEIGHT_SCHEMA ") -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(padmarlin_checked, CPU, m) {
  m.impl("gemm", TORCH_BOX(&padmarlin::gemm));
  m.impl("gemm_out", TORCH_BOX(&padmarlin::gemm_out));
}
