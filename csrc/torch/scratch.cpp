// SPDX-License-Identifier: Apache-2.0
// The three steps of the scratch family, on buffers of torch's caching allocator. All of it is in
// the order of one stream: a buffer is free for the next chunk when the step that reads it is
// enqueued, and for other tensors when this returns.
#include "torch/scratch.h"

#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <string>

#include "cuda/dequantize.h"
#include "cuda/round.h"
#include "torch/device.h"

namespace padmarlin {
namespace {

// products = a @ weights, in fp32. aten::mm.dtype_out is in every torch from 2.8 on, for CUDA; the
// stable ABI has no function for it, but calls every operator by name. False if torch refuses it.
bool multiply(const Tensor& a, const Tensor& weights, const Tensor& products) {
  using torch::stable::detail::from;
  std::array<StableIValue, 4> stack = {from(a), from(weights), from(ScalarType::Float),
                                       from(products)};
  if (torch_call_dispatcher("aten::mm", "dtype_out", stack.data(), TORCH_ABI_VERSION) !=
      TORCH_SUCCESS) {
    return false;
  }
  torch::stable::detail::to<Tensor>(stack[0]);  // takes the reference to `products` back
  return true;
}

// The first rows and columns of a buffer.
Tensor corner(Tensor& buffer, int64_t rows, int64_t columns) {
  Tensor first = torch::stable::narrow(buffer, 0, 0, rows);
  return torch::stable::narrow(first, 1, 0, columns);
}

class Chunks {
 public:
  Chunks(const ScratchCall& call, const GemmChoice& choice, void* stream)
      : call_(call),
        choice_(choice),
        stream_(stream),
        all_weights_(call.weight.dequantize_arguments()),
        weights_(torch::stable::new_empty(call.a, {call.weight.k, choice.tile_n})),
        products_(
            torch::stable::new_empty(call.a, {choice.tile_m, choice.tile_n}, ScalarType::Float)) {}

  // False: torch refused a product.
  bool compute() {
    for (int i = 0; i < choice_.n_tiles; ++i) {
      const int first = i * choice_.tile_n;
      const int columns =
          std::min(choice_.tile_n, static_cast<int>(call_.weight.padded_n()) - first);
      dequantize(first, columns);
      for (int j = 0; j < choice_.m_tiles; ++j) {
        if (!compute_rows(j * choice_.tile_m, first, columns)) return false;
      }
    }
    return true;
  }

 private:
  // Padding columns too: the matmul then always has a multiple of 64 of them. Rows that no padded
  // row is, which a complete column table does not leave, stay as the allocator gave them.
  void dequantize(int first, int columns) {
    const DequantizeArguments arguments =
        with_columns(all_weights_, first, columns, weights_.mutable_data_ptr(), choice_.tile_n);
    check_launch(call_.weight.function, launch_dequantize(arguments, stream_), [&] {
      return "the scratch of " + std::to_string(columns) + " columns from " + std::to_string(first);
    });
  }

  bool compute_rows(int first_row, int first, int columns) {
    const int64_t m = call_.a.size(0), n = call_.weight.n;
    const int rows = static_cast<int>(std::min<int64_t>(choice_.tile_m, m - first_row));
    Tensor all_rows = call_.a;
    const Tensor a = torch::stable::narrow(all_rows, 0, first_row, rows);
    if (!multiply(a, corner(weights_, call_.weight.k, columns), corner(products_, rows, columns))) {
      return false;
    }
    const auto* const bias = static_cast<const uint16_t*>(const_data_or_null(call_.bias));
    const RoundArguments arguments = {
        .products = static_cast<const float*>(products_.const_data_ptr()),
        .bias = bias == nullptr ? nullptr : bias + first,
        .out = static_cast<uint16_t*>(call_.out.mutable_data_ptr()) + first_row * call_.ldo + first,
        .ldp = choice_.tile_n,
        .ldo = call_.ldo,
        .m = rows,
        .n = static_cast<int>(std::min<int64_t>(columns, n - first)),
        .dtype = all_weights_.dtype,
    };
    check_launch(call_.weight.function, launch_round(arguments, stream_), [&] {
      return "the products of rows from " + std::to_string(first_row) + ", columns from " +
             std::to_string(first);
    });
    return true;
  }

  const ScratchCall& call_;
  const GemmChoice& choice_;
  void* const stream_;
  const DequantizeArguments all_weights_;
  Tensor weights_;   // (k, tile_n)
  Tensor products_;  // (tile_m, tile_n)
};

}  // namespace

bool multiply_by_scratch(const ScratchCall& call, const GemmChoice& choice, void* stream) {
  return Chunks(call, choice, stream).compute();
}

}  // namespace padmarlin
