// SPDX-License-Identifier: Apache-2.0
// padmarlin::repack on CUDA: checks every size, allocates, launches.
#include "cuda/repack.h"

#include <torch/csrc/stable/ops.h>

#include "core/layout.h"
#include "core/packing.h"
#include "torch/checks.h"
#include "torch/device.h"
#include "torch/operators.h"

namespace padmarlin {
namespace {

constexpr char kFunction[] = "padmarlin.repack";

void check_numbers(int64_t packing, int64_t first_column, int64_t n, int64_t bits, int64_t base) {
  check_extent(kFunction, "n", n, 0);
  check_extent(kFunction, "first_column", first_column, 0);
  STD_TORCH_CHECK(bits == 4 || bits == 8, kFunction, ": bits is ", bits, ", expected 4 or 8");
  STD_TORCH_CHECK(packing >= 0 && packing <= static_cast<int64_t>(Packing::kCompressedTensors) &&
                      packs(static_cast<Packing>(packing), static_cast<int>(bits)),
                  kFunction, ": packing is ", packing, " with ", bits,
                  " bits, expected 0 (GPTQ), 1 (AWQ, 4 bits only) or 2 (compressed-tensors)");
  const bool known = base == field_base(Dtype::kHalf, static_cast<int>(bits)) ||
                     base == field_base(Dtype::kBfloat16, static_cast<int>(bits));
  STD_TORCH_CHECK(known, kFunction, ": field_base is ", base, " with ", bits,
                  " bits, expected 0, or 3 with 4 bits (float16)");
}

void check_words(const Tensor& words, Packing packing, int bits, int64_t first_column, int64_t n) {
  Argument(kFunction, "words", words)
      .is_on_cuda()
      .has_dtype(ScalarType::Int)
      .has_dim(2)
      .has_contiguous_rows();
  check_extent(kFunction, "the number of rows of words", words.size(0), 1);
  check_extent(kFunction, "the number of columns of words", words.size(1), 1);
  const int64_t held = held_columns(packing, bits, words.size(0), words.size(1));
  check_extent(kFunction, "the number of columns of codes in words", held, first_column + n);
}

void check_tables(const Tensor& words, const Tensor& source_rows, const Tensor& slice_rows) {
  Argument(kFunction, "source_rows", source_rows)
      .is_on_device_of(words, "words")
      .has_dtype(ScalarType::Int)
      .has_dim(1)
      .is_contiguous();
  const int64_t padded_k = source_rows.size(0);
  check_extent(kFunction, "padded_k", padded_k, 0);
  STD_TORCH_CHECK(padded_k % kTile == 0, kFunction, ": source_rows has ", padded_k,
                  " elements, expected a multiple of ", kTile, " = padded_k");
  Argument(kFunction, "slice_rows", slice_rows)
      .is_on_device_of(words, "words")
      .has_dtype(ScalarType::Int)
      .has_shape({padded_k / kSlice}, "(padded_k / 16,)")
      .is_contiguous();
}

void check_pad_codes(const Tensor& words, const Tensor& pad_codes, int64_t padded_n) {
  Argument(kFunction, "pad_codes", pad_codes)
      .is_on_device_of(words, "words")
      .has_dtype(ScalarType::Byte)
      .has_dim(2)
      .has_shape({pad_codes.size(0), padded_n}, "(scale rows, n rounded up to 64)")
      .is_contiguous();
  check_extent(kFunction, "the number of rows of pad_codes", pad_codes.size(0), 1);
}

}  // namespace

Tensor repack(Tensor words, Tensor source_rows, Tensor slice_rows, std::optional<Tensor> pad_codes,
              int64_t packing, int64_t first_column, int64_t n, int64_t bits, int64_t field_base) {
  check_numbers(packing, first_column, n, bits, field_base);
  check_words(words, static_cast<Packing>(packing), static_cast<int>(bits), first_column, n);
  check_tables(words, source_rows, slice_rows);
  const int64_t padded_k = source_rows.size(0), padded_n = round_up(n, kTile);
  if (pad_codes) check_pad_codes(words, *pad_codes, padded_n);

  const auto tile = static_cast<int64_t>(tile_words(static_cast<int>(bits)));
  Tensor out = torch::stable::new_empty(words, {padded_n / kTile, padded_k / kTile, tile});
  if (out.numel() == 0) return out;
  const CurrentDevice device(kFunction, words.get_device_index());
  const RepackArguments arguments = {
      .words = static_cast<const uint32_t*>(words.const_data_ptr()),
      .source_rows = static_cast<const int32_t*>(source_rows.const_data_ptr()),
      .slice_rows = static_cast<const int32_t*>(slice_rows.const_data_ptr()),
      .pad_codes = static_cast<const uint8_t*>(const_data_or_null(pad_codes)),
      .out = static_cast<uint32_t*>(out.mutable_data_ptr()),
      .ldw = rows_of(words).stride,
      .word_rows = static_cast<int>(words.size(0)),
      .word_columns = static_cast<int>(words.size(1)),
      .packing = static_cast<Packing>(packing),
      .first_column = static_cast<int>(first_column),
      .n = static_cast<int>(n),
      .padded_n = static_cast<int>(padded_n),
      .padded_k = static_cast<int>(padded_k),
      .scale_rows = pad_codes ? static_cast<int>(pad_codes->size(0)) : 1,
      .bits = static_cast<int>(bits),
      .field_base = static_cast<int>(field_base),
  };
  check_launch(kFunction, launch_repack(arguments, device.stream()), [&] {
    return "n = " + std::to_string(n) + ", padded_k = " + std::to_string(padded_k) +
           ", bits = " + std::to_string(bits);
  });
  return out;
}

}  // namespace padmarlin
