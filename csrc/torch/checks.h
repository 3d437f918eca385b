// SPDX-License-Identifier: Apache-2.0
// Checks of operator arguments: every message names the function, the argument, what it got, what
// was expected and, where there is one, the remedy. STD_TORCH_CHECK turns them into RuntimeErrors.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "core/dtype.h"
#include "torch/rows.h"

namespace padmarlin {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_text(const int64_t* sizes, size_t dim) {
  std::string text = "(";
  for (size_t i = 0; i < dim; ++i) text += (i ? ", " : "") + std::to_string(sizes[i]);
  return text + (dim == 1 ? ",)" : ")");
}

inline std::string shape_text(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return shape_text(sizes.data(), sizes.size());
}

inline const char* dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    default:
      return "another dtype";
  }
}

// One argument of one operator, with the checks that operators share.
class Argument {
 public:
  Argument(const char* function, const char* name, const Tensor& tensor)
      : function_(function), name_(name), tensor_(tensor) {}

  const Argument& has_dtype(ScalarType expected) const {
    STD_TORCH_CHECK(tensor_.scalar_type() == expected, function_, ": ", name_, " is ",
                    dtype_name(tensor_.scalar_type()), ", expected ", dtype_name(expected));
    return *this;
  }

  // The dispatcher comes here if any argument is on a GPU, so even the first is not sure to be.
  const Argument& is_on_cuda() const {
    STD_TORCH_CHECK(tensor_.is_cuda(), function_, ": ", name_, " is on ", device_text(),
                    ", expected a CUDA device, as another argument is; pass ", name_, ".cuda()");
    return *this;
  }

  const Argument& is_on_device_of(const Tensor& other, const char* other_name) const {
    STD_TORCH_CHECK(tensor_.is_cuda() && tensor_.get_device_index() == other.get_device_index(),
                    function_, ": ", name_, " is on ", device_text(),
                    ", expected cuda:", other.get_device_index(), ", the device of ", other_name);
    return *this;
  }

  const Argument& has_dim(int64_t expected) const {
    STD_TORCH_CHECK(tensor_.dim() == expected, function_, ": ", name_, " has shape ",
                    shape_text(tensor_), ", expected ", expected, " dimensions");
    return *this;
  }

  // `meaning` spells the expected shape in the caller's terms.
  const Argument& has_shape(std::initializer_list<int64_t> expected, const char* meaning) const {
    bool equal = tensor_.dim() == static_cast<int64_t>(expected.size());
    for (size_t i = 0; equal && i < expected.size(); ++i) {
      equal = tensor_.size(static_cast<int64_t>(i)) == expected.begin()[i];
    }
    STD_TORCH_CHECK(equal, function_, ": ", name_, " has shape ", shape_text(tensor_),
                    ", expected ", shape_text(expected.begin(), expected.size()), " = ", meaning);
    return *this;
  }

  const Argument& is_contiguous() const {
    STD_TORCH_CHECK(tensor_.is_contiguous(), function_, ": ", name_, " is not contiguous; pass ",
                    name_, ".contiguous()");
    return *this;
  }

  // Elements of a row lie side by side. A dimension of one element may report any stride.
  const Argument& has_contiguous_rows() const {
    const int64_t last = tensor_.dim() - 1;
    STD_TORCH_CHECK(tensor_.size(last) <= 1 || tensor_.stride(last) == 1, function_, ": ", name_,
                    " has stride ", tensor_.stride(last),
                    " in its last dimension, expected 1; pass ", name_, ".contiguous()");
    return *this;
  }

  // As rows_of has found them.
  const Argument& has_one_row_stride(const Rows& rows) const {
    STD_TORCH_CHECK(rows.collapse, function_, ": ", name_, " has strides ",
                    shape_text(tensor_.strides().data(), tensor_.strides().size()), " for shape ",
                    shape_text(tensor_), ", expected rows of one stride; pass ", name_,
                    ".contiguous()");
    return *this;
  }

  const Argument& is_aligned(uintptr_t bytes) const {
    const auto address = reinterpret_cast<uintptr_t>(tensor_.const_data_ptr());
    STD_TORCH_CHECK(address % bytes == 0, function_, ": ", name_, " begins ", address % bytes,
                    " bytes past a multiple of ", bytes, ", expected 0; pass ", name_, ".clone()");
    return *this;
  }

 private:
  std::string device_text() const {
    return tensor_.is_cuda() ? "cuda:" + std::to_string(tensor_.get_device_index())
                             : std::string(tensor_.is_cpu() ? "cpu" : "another device");
  }

  const char* function_;
  const char* name_;
  const Tensor& tensor_;
};

// The kernels count rows and columns in 32 bits, with room for rounding up to a tile.
constexpr int64_t kMaxExtent = INT32_MAX - 256;

inline void check_extent(const char* function, const char* name, int64_t value, int64_t least) {
  STD_TORCH_CHECK(value >= least && value <= kMaxExtent, function, ": ", name, " is ", value,
                  ", expected ", least, " to ", kMaxExtent);
}

inline const void* const_data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

}  // namespace padmarlin
