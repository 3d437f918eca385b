// SPDX-License-Identifier: Apache-2.0
// The CUDA implementations of the operators whose schemas padmarlin/ops.py defines. They trust no
// argument: what they pass on cannot make a kernel leave its buffers, whoever called.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

namespace padmarlin {

using torch::stable::Tensor;

Tensor gemm(Tensor a, Tensor qweight, Tensor scales, std::optional<Tensor> zeros, Tensor slice_rows,
            std::optional<Tensor> columns, std::optional<Tensor> bias, int64_t k, int64_t n,
            int64_t bits, int64_t front_pad, int64_t dequant, bool batch_invariant);

void gemm_out(Tensor out, Tensor a, Tensor qweight, Tensor scales, std::optional<Tensor> zeros,
              Tensor slice_rows, std::optional<Tensor> columns, std::optional<Tensor> bias,
              int64_t k, int64_t n, int64_t bits, int64_t front_pad, int64_t dequant,
              bool batch_invariant);

Tensor dequantize(Tensor qweight, Tensor scales, std::optional<Tensor> zeros, Tensor slice_rows,
                  std::optional<Tensor> columns, int64_t k, int64_t n, int64_t bits,
                  int64_t front_pad, int64_t dequant);

Tensor repack(Tensor words, Tensor source_rows, Tensor slice_rows, std::optional<Tensor> pad_codes,
              int64_t packing, int64_t first_column, int64_t n, int64_t bits, int64_t field_base);

}  // namespace padmarlin
