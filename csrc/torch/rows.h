// SPDX-License-Identifier: Apache-2.0
// A tensor of any dimension as the rows of a matrix, without a view: those cost as much as a
// launch.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace padmarlin {

struct Rows {
  int64_t count = 1;     // of all dimensions but the last
  int64_t stride = 0;    // elements from one row to the next; the row's length if there is but one
  bool collapse = true;  // there is one such stride for all of them
};

// A dimension of one element may report any stride.
inline Rows rows_of(const torch::stable::Tensor& tensor) {
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  Rows rows;
  for (int64_t i = static_cast<int64_t>(sizes.size()) - 2; i >= 0; --i) {
    if (sizes[i] == 1) continue;
    if (rows.count == 1) {
      rows.stride = strides[i];
    } else if (strides[i] != rows.count * rows.stride) {
      rows.collapse = false;
    }
    rows.count *= sizes[i];
  }
  if (rows.count == 0) rows.collapse = true;
  if (rows.count == 1 && !sizes.empty()) rows.stride = sizes[sizes.size() - 1];
  return rows;
}

}  // namespace padmarlin
