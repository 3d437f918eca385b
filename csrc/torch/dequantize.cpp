// SPDX-License-Identifier: Apache-2.0
// padmarlin::dequantize on CUDA: checks every size, allocates, launches.
#include "cuda/dequantize.h"

#include <torch/csrc/stable/ops.h>

#include "torch/checks.h"
#include "torch/device.h"
#include "torch/operators.h"
#include "torch/packed_weight.h"

namespace padmarlin {

Tensor dequantize(Tensor qweight, Tensor scales, std::optional<Tensor> zeros, Tensor slice_rows,
                  std::optional<Tensor> columns, int64_t k, int64_t n, int64_t bits,
                  int64_t front_pad, int64_t dequant) {
  constexpr char kFunction[] = "padmarlin.dequantize";
  const PackedWeight weight = {kFunction, qweight, scales, zeros,     slice_rows, columns,
                               k,         n,       bits,   front_pad, dequant};
  Argument(kFunction, "scales", scales).is_on_cuda().has_dim(2);
  const ScalarType dtype = scales.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Half || dtype == ScalarType::BFloat16, kFunction,
                  ": scales is ", dtype_name(dtype), ", expected float16 or bfloat16");
  weight.check_numbers();
  weight.check_tensors(scales, "scales");
  const int64_t tiles = qweight.size(0) * qweight.size(1);
  STD_TORCH_CHECK(tiles <= INT32_MAX, kFunction, ": qweight has ", tiles,
                  " tiles, expected at most ", INT32_MAX);

  Tensor out = torch::stable::new_empty(scales, {k, n});
  if (out.numel() == 0) return out;
  const CurrentDevice device(kFunction, scales.get_device_index());
  DequantizeArguments arguments = weight.dequantize_arguments();
  arguments.out = out.mutable_data_ptr();
  check_launch(kFunction, launch_dequantize(arguments, device.stream()), [&] {
    return "n = " + std::to_string(n) + ", k = " + std::to_string(k) +
           ", bits = " + std::to_string(bits);
  });
  return out;
}

}  // namespace padmarlin
