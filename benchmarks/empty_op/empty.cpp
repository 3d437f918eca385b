// SPDX-License-Identifier: Apache-2.0
// Operators that do nothing, for benchmarks/overhead.py: what a call costs before it does anything.
// `one` takes a tensor; `gemm` has padmarlin::gemm's arguments; both give back the first of them.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "torch/operators.h"

namespace {

using torch::stable::Tensor;

Tensor one(Tensor a) { return a; }

Tensor gemm(Tensor a, Tensor, Tensor, std::optional<Tensor>, Tensor, std::optional<Tensor>,
            std::optional<Tensor>, int64_t, int64_t, int64_t, int64_t, int64_t, bool) {
  return a;
}

}  // namespace

STABLE_TORCH_LIBRARY(padmarlin_empty, m) {
  m.def("one(Tensor a) -> Tensor");
  m.def("gemm(Tensor a, " PADMARLIN_WEIGHT_SCHEMA ") -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(padmarlin_empty, CPU, m) {
  m.impl("one", TORCH_BOX(&one));
  m.impl("gemm", TORCH_BOX(&gemm));
}

STABLE_TORCH_LIBRARY_IMPL(padmarlin_empty, CUDA, m) {
  m.impl("one", TORCH_BOX(&one));
  m.impl("gemm", TORCH_BOX(&gemm));
}
