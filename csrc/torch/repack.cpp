// SPDX-License-Identifier: Apache-2.0
// padmarlin::repack_gptq on CUDA: checks every size, allocates, launches.
#include "cuda/repack.h"

#include <torch/csrc/stable/ops.h>

#include "core/layout.h"
#include "torch/checks.h"
#include "torch/device.h"
#include "torch/operators.h"

namespace padmarlin {
namespace {

constexpr char kFunction[] = "padmarlin.repack_gptq";

void check_numbers(int64_t n, int64_t bits, int64_t base) {
  check_extent(kFunction, "n", n, 0);
  STD_TORCH_CHECK(bits == 4 || bits == 8, kFunction, ": bits is ", bits, ", expected 4 or 8");
  const bool known = base == field_base(Dtype::kHalf, static_cast<int>(bits)) ||
                     base == field_base(Dtype::kBfloat16, static_cast<int>(bits));
  STD_TORCH_CHECK(known, kFunction, ": field_base is ", base, " with ", bits,
                  " bits, expected 0, or 3 with 4 bits (float16)");
}

void check_qweight(const Tensor& qweight, int64_t n) {
  Argument(kFunction, "qweight", qweight)
      .is_on_cuda()
      .has_dtype(ScalarType::Int)
      .has_dim(2)
      .has_contiguous_rows();
  check_extent(kFunction, "the number of rows of qweight", qweight.size(0), 0);
  check_extent(kFunction, "the number of columns of qweight", qweight.size(1), n);
}

void check_tables(const Tensor& qweight, const Tensor& source_rows, const Tensor& slice_rows) {
  Argument(kFunction, "source_rows", source_rows)
      .is_on_device_of(qweight, "qweight")
      .has_dtype(ScalarType::Int)
      .has_dim(1)
      .is_contiguous();
  const int64_t padded_k = source_rows.size(0);
  check_extent(kFunction, "padded_k", padded_k, 0);
  STD_TORCH_CHECK(padded_k % kTile == 0, kFunction, ": source_rows has ", padded_k,
                  " elements, expected a multiple of ", kTile, " = padded_k");
  Argument(kFunction, "slice_rows", slice_rows)
      .is_on_device_of(qweight, "qweight")
      .has_dtype(ScalarType::Int)
      .has_shape({padded_k / kSlice}, "(padded_k / 16,)")
      .is_contiguous();
}

void check_pad_codes(const Tensor& qweight, const Tensor& pad_codes, int64_t padded_n) {
  Argument(kFunction, "pad_codes", pad_codes)
      .is_on_device_of(qweight, "qweight")
      .has_dtype(ScalarType::Byte)
      .has_dim(2)
      .has_shape({pad_codes.size(0), padded_n}, "(scale rows, n rounded up to 64)")
      .is_contiguous();
  check_extent(kFunction, "the number of rows of pad_codes", pad_codes.size(0), 1);
}

}  // namespace

Tensor repack_gptq(Tensor qweight, Tensor source_rows, Tensor slice_rows,
                   std::optional<Tensor> pad_codes, int64_t n, int64_t bits, int64_t field_base) {
  check_numbers(n, bits, field_base);
  check_qweight(qweight, n);
  check_tables(qweight, source_rows, slice_rows);
  const int64_t padded_k = source_rows.size(0), padded_n = round_up(n, kTile);
  if (pad_codes) check_pad_codes(qweight, *pad_codes, padded_n);

  const auto words = static_cast<int64_t>(tile_words(static_cast<int>(bits)));
  Tensor out = torch::stable::new_empty(qweight, {padded_n / kTile, padded_k / kTile, words});
  if (out.numel() == 0) return out;
  const CurrentDevice device(kFunction, qweight.get_device_index());
  const RepackArguments arguments = {
      .qweight = static_cast<const uint32_t*>(qweight.const_data_ptr()),
      .source_rows = static_cast<const int32_t*>(source_rows.const_data_ptr()),
      .slice_rows = static_cast<const int32_t*>(slice_rows.const_data_ptr()),
      .pad_codes = static_cast<const uint8_t*>(const_data_or_null(pad_codes)),
      .out = static_cast<uint32_t*>(out.mutable_data_ptr()),
      .ldw = row_stride(qweight),
      .source_words = static_cast<int>(qweight.size(0)),
      .n = static_cast<int>(n),
      .padded_n = static_cast<int>(padded_n),
      .padded_k = static_cast<int>(padded_k),
      .scale_rows = pad_codes ? static_cast<int>(pad_codes->size(0)) : 1,
      .bits = static_cast<int>(bits),
      .field_base = static_cast<int>(field_base),
  };
  check_launch(kFunction, launch_repack_gptq(arguments, device.stream()),
               "n = " + std::to_string(n) + ", padded_k = " + std::to_string(padded_k) +
                   ", bits = " + std::to_string(bits));
  return out;
}

}  // namespace padmarlin
