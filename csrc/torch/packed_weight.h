// SPDX-License-Identifier: Apache-2.0
// The tensors and numbers of a packed weight as operators get them, and the checks that gemm and
// dequantize share: what passes them cannot make a kernel leave its buffers.
#pragma once

#include "core/layout.h"
#include "cuda/dequantize.h"
#include "torch/checks.h"

namespace padmarlin {

struct PackedWeight {
  // Weights, scales and zeros are read so many bytes at a time.
  static constexpr uintptr_t kVectorBytes = 16;

  const char* function;
  const Tensor& qweight;
  const Tensor& scales;
  const std::optional<Tensor>& zeros;
  const Tensor& slice_rows;
  const std::optional<Tensor>& columns;
  int64_t k, n, bits, front_pad, dequant;

  int64_t padded_n() const { return qweight.size(0) * kTile; }
  int64_t padded_k() const { return qweight.size(1) * kTile; }

  Dtype dtype() const {
    return scales.scalar_type() == ScalarType::Half ? Dtype::kHalf : Dtype::kBfloat16;
  }

  // For all columns and any matrix: `out` is the caller's to set.
  DequantizeArguments dequantize_arguments() const {
    return {.qweight = static_cast<const uint32_t*>(qweight.const_data_ptr()),
            .scales = scales.const_data_ptr(),
            .zeros = static_cast<const uint16_t*>(const_data_or_null(zeros)),
            .slice_rows = static_cast<const int32_t*>(slice_rows.const_data_ptr()),
            .columns = static_cast<const int32_t*>(const_data_or_null(columns)),
            .out = nullptr,
            .lds = padded_n(),
            .ldo = n,
            .n = static_cast<int>(n),
            .k = static_cast<int>(k),
            .padded_k = static_cast<int>(padded_k()),
            .scale_rows = static_cast<int>(scales.size(0)),
            .front_pad = static_cast<int>(front_pad),
            .bits = static_cast<int>(bits),
            .dtype = dtype(),
            .dequant = static_cast<Dequant>(dequant)};
  }

  void check_numbers() const {
    check_extent(function, "k", k, 1);
    check_extent(function, "n", n, 0);
    STD_TORCH_CHECK(bits == 4 || bits == 8, function, ": bits is ", bits, ", expected 4 or 8");
    STD_TORCH_CHECK(front_pad >= 0 && front_pad < kTile, function, ": front_pad is ", front_pad,
                    ", expected 0 to ", kTile - 1);
    const auto kind = static_cast<Dequant>(dequant);
    STD_TORCH_CHECK(
        kind == Dequant::kTwoField || kind == Dequant::kOneField || kind == Dequant::kWide,
        function, ": dequant is ", dequant, ", expected 0, 1 or 2");
    STD_TORCH_CHECK(bits == 4 || kind != Dequant::kTwoField, function,
                    ": dequant is 0 (two_field) with 8 bits, expected 1 or 2");
    STD_TORCH_CHECK(zeros || kind != Dequant::kWide, function,
                    ": dequant is 2 (wide) without zeros, expected a zeros tensor");
  }

  // Against a tensor whose device they share and whose dtype the scales have.
  void check_tensors(const Tensor& other, const char* other_name) const {
    check_codes(other, other_name);
    check_scales(other, other_name);
    check_tables(other, other_name);
  }

 private:
  Argument argument(const char* name, const Tensor& tensor) const {
    return Argument(function, name, tensor);
  }

  void check_codes(const Tensor& other, const char* other_name) const {
    const auto words = static_cast<int64_t>(tile_words(static_cast<int>(bits)));
    argument("qweight", qweight)
        .is_on_device_of(other, other_name)
        .has_dtype(ScalarType::Int)
        .has_dim(3)
        .has_shape({qweight.size(0), qweight.size(1), words},
                   "(padded_n / 64, padded_k / 64, 128 * bits)")
        .is_contiguous()
        .is_aligned(kVectorBytes);
    STD_TORCH_CHECK(n == 0 || round_up(n, kTile) == padded_n(), function, ": n is ", n,
                    ", expected ", padded_n() - kTile + 1, " to ", padded_n(),
                    ", the columns of qweight");
    // Every column of a has a row of the weight, by the column table or in order.
    check_extent(function, "padded_k", padded_k(), front_pad + k);
  }

  void check_scales(const Tensor& other, const char* other_name) const {
    argument("scales", scales)
        .is_on_device_of(other, other_name)
        .has_dtype(other.scalar_type())
        .has_dim(2)
        .has_shape({scales.size(0), padded_n()}, "(scale rows, padded_n)")
        .is_contiguous()
        .is_aligned(kVectorBytes);
    check_extent(function, "the number of scale rows", scales.size(0), 1);
    if (!zeros) return;
    argument("zeros", *zeros)
        .is_on_device_of(other, other_name)
        .has_dtype(ScalarType::Short)
        .has_shape({scales.size(0), padded_n()}, "the shape of scales")
        .is_contiguous()
        .is_aligned(kVectorBytes);
  }

  // Sizes only: reading a table's values would stall the stream, so the kernels clamp them.
  void check_tables(const Tensor& other, const char* other_name) const {
    argument("slice_rows", slice_rows)
        .is_on_device_of(other, other_name)
        .has_dtype(ScalarType::Int)
        .has_shape({padded_k() / kSlice}, "(padded_k / 16,)")
        .is_contiguous();
    if (!columns) return;
    argument("columns", *columns)
        .is_on_device_of(other, other_name)
        .has_dtype(ScalarType::Int)
        .has_shape({padded_k()}, "(padded_k,)")
        .is_contiguous();
    STD_TORCH_CHECK(front_pad == 0, function, ": front_pad is ", front_pad,
                    " with columns, expected 0: the column table already says what is padding");
  }
};

}  // namespace padmarlin
