// SPDX-License-Identifier: Apache-2.0
// The table of CUDA implementations. Schemas, fakes and CPU implementations stand in
// padmarlin/ops.py, so that they exist without this library.
#include <torch/csrc/stable/library.h>

#include "torch/operators.h"

STABLE_TORCH_LIBRARY_IMPL(padmarlin, CUDA, m) {
  m.impl("dequantize", TORCH_BOX(&padmarlin::dequantize));
  m.impl("gemm", TORCH_BOX(&padmarlin::gemm));
  m.impl("gemm_out", TORCH_BOX(&padmarlin::gemm_out));
  m.impl("repack", TORCH_BOX(&padmarlin::repack));
}
