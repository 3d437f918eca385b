// SPDX-License-Identifier: Apache-2.0
// padmarlin::gemm and gemm_out on CUDA: checks every size, allocates, launches.
#include "cuda/gemm.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "core/choice_cache.h"
#include "core/explain.h"
#include "core/forced_kernel.h"
#include "core/select_gemm.h"
#include "cuda/align.h"
#include "torch/checks.h"
#include "torch/device.h"
#include "torch/operators.h"
#include "torch/packed_weight.h"
#include "torch/workspace.h"

namespace padmarlin {
namespace {

constexpr char kFunction[] = "padmarlin.gemm";

// The arguments of one call by name: what gemm and gemm_out share.
struct Call {
  const char* function;
  const Tensor& a;
  PackedWeight weight;
  const std::optional<Tensor>& bias;
  bool batch_invariant;

  Argument argument(const char* name, const Tensor& tensor) const {
    return Argument(function, name, tensor);
  }
  int64_t m() const { return a.size(0); }
};

void check_activations(const Call& call) {
  call.argument("a", call.a)
      .is_on_cuda()
      .has_dim(2)
      .has_shape({call.m(), call.weight.k}, "(m, k)")
      .has_contiguous_rows();
  check_extent(call.function, "the number of rows of a", call.m(), 0);
  const ScalarType dtype = call.a.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Half || dtype == ScalarType::BFloat16, call.function,
                  ": a is ", dtype_name(dtype), ", expected float16 or bfloat16");
}

void check_bias(const Call& call) {
  if (!call.bias) return;
  call.argument("bias", *call.bias)
      .is_on_device_of(call.a, "a")
      .has_dtype(call.a.scalar_type())
      .has_shape({call.weight.n}, "(n,)")
      .is_contiguous();
}

void check_out(const Call& call, const Tensor& out) {
  call.argument("out", out)
      .is_on_device_of(call.a, "a")
      .has_dtype(call.a.scalar_type())
      .has_shape({call.m(), call.weight.n}, "(m, n)")
      .has_contiguous_rows();
  STD_TORCH_CHECK(row_stride(out) >= call.weight.n, call.function, ": out has row stride ",
                  row_stride(out), ", expected at least n = ", call.weight.n, ": its rows overlap");
}

void check(const Call& call) {
  call.weight.check_numbers();
  check_activations(call);
  call.weight.check_tensors(call.a, "a");
  check_bias(call);
}

// Bytes from the first element to that of a row: of 16-bit elements.
int64_t row_offset(const Tensor& matrix, int64_t row) { return row * row_stride(matrix) * 2; }

std::optional<Family> forced_family(const Call& call) {
  const KernelRequest* const request = kernel_request().load(std::memory_order_relaxed);
  STD_TORCH_CHECK(request != nullptr, call.function, ": PADMARLIN_KERNEL is '", kernel_variable(),
                  "', expected ", kKernelRequestNames, "; unset it");
  return request->family;
}

// Rows [first, first + m) of the output.
void run_rows(const Call& call, Tensor& out, const CurrentDevice& device, int64_t first, int m) {
  const void* const a =
      static_cast<const uint8_t*>(call.a.const_data_ptr()) + row_offset(call.a, first);
  // A single row has no next one: its odd length must not narrow the copies.
  const int64_t lda = m > 1 ? row_stride(call.a) : 0;
  const int padded_n = static_cast<int>(call.weight.padded_n());
  const int padded_k = static_cast<int>(call.weight.padded_k());
  const GemmProblem problem = {.m = m,
                               .padded_n = padded_n,
                               .padded_k = padded_k,
                               .bits = static_cast<int>(call.weight.bits),
                               .asymmetric = call.weight.zeros.has_value(),
                               .dequant = static_cast<Dequant>(call.weight.dequant),
                               .gathers = call.weight.columns.has_value(),
                               .copy_bytes = copy_bytes(a, lda, m, call.weight.k),
                               .batch_invariant = call.batch_invariant,
                               .forced = forced_family(call)};
  STD_TORCH_CHECK(is_computable(problem), call.function, ": a has ", m, " rows and the weight ",
                  call.weight.n, " columns, expected fewer than 2^43 elements of output; split a");
  STD_TORCH_CHECK(is_allowed(problem, device.properties()), call.function,
                  ": PADMARLIN_KERNEL is 'wgmma', expected 'auto' or 'mma': the wgmma kernel is ",
                  why_not_wgmma(problem, device.properties()));
  static thread_local ChoiceCache choices;
  const GemmChoice choice = choices.choose(problem, device.properties());
  // From the caching allocator, per call: freed when this returns, reused in stream order, and
  // part of the graph's own pool during a capture.
  std::optional<Tensor> partials;
  if (const int64_t bytes = partials_bytes(choice); bytes > 0) {
    const auto floats = bytes / static_cast<int64_t>(sizeof(float));
    partials = torch::stable::new_empty(out, {floats}, ScalarType::Float);
  }
  void* const stream = device.stream();
  const int counters = num_counters(choice.partition);

  GemmArguments arguments = {
      .a = a,
      .qweight = static_cast<const uint32_t*>(call.weight.qweight.const_data_ptr()),
      .scales = call.weight.scales.const_data_ptr(),
      .zeros = static_cast<const uint16_t*>(const_data_or_null(call.weight.zeros)),
      .slice_rows = static_cast<const int32_t*>(call.weight.slice_rows.const_data_ptr()),
      .columns = static_cast<const int32_t*>(const_data_or_null(call.weight.columns)),
      .bias = const_data_or_null(call.bias),
      .out = static_cast<uint8_t*>(out.mutable_data_ptr()) + row_offset(out, first),
      .partials = partials ? static_cast<float*>(partials->mutable_data_ptr()) : nullptr,
      .counters = counters > 0 ? split_counters(call.function, call.a.get_device_index(), stream,
                                                device.properties().num_sms, counters)
                               : nullptr,
      .lda = lda,
      .ldc = row_stride(out),
      .m = m,
      .n = static_cast<int>(call.weight.n),
      .k = static_cast<int>(call.weight.k),
      .padded_n = padded_n,
      .padded_k = padded_k,
      .scale_rows = static_cast<int>(call.weight.scales.size(0)),
      .front_pad = static_cast<int>(call.weight.front_pad),
      .bits = static_cast<int>(call.weight.bits),
      .dtype = call.a.scalar_type() == ScalarType::Half ? Dtype::kHalf : Dtype::kBfloat16,
      .dequant = static_cast<Dequant>(call.weight.dequant),
      .overlaps_previous = device.overlaps_kernels(),
  };
  const auto described = [&] {
    return "m = " + std::to_string(m) + ", n = " + std::to_string(call.weight.n) +
           ", k = " + std::to_string(call.weight.k) +
           ", bits = " + std::to_string(call.weight.bits);
  };
  std::optional<Tensor> aligned;
  if (choice.aligns_activations) {
    aligned = torch::stable::new_empty(out, {aligned_bytes(arguments) / 2});
    void* const scratch = aligned->mutable_data_ptr();
    check_launch(call.function, align_activations(arguments, scratch, stream), described);
    arguments = with_aligned(arguments, scratch);
  }
  check_launch(call.function, launch_gemm(arguments, choice, stream), described);
}

// Where A has to be aligned, it is so many bytes at a time.
constexpr int64_t kMaxAlignedBytes = int64_t{256} << 20;
constexpr int64_t kRowTile = 640;  // of whole tiles of the most usual rows: 64, 80, 128, 160

void run(const Call& call, Tensor& out) {
  if (call.m() == 0 || call.weight.n == 0) return;
  const CurrentDevice device(call.function, call.a.get_device_index());
  const int64_t width =
      call.weight.columns ? call.weight.padded_k() : round_up(call.weight.k, kTmaElements);
  const bool aligned =
      !call.weight.columns &&
      copy_bytes(call.a.const_data_ptr(), row_stride(call.a), call.m(), call.weight.k) == 16;
  const int64_t fitting = std::max(kMaxAlignedBytes / (2 * width) / kRowTile, int64_t{1});
  const int64_t rows = aligned ? call.m() : fitting * kRowTile;
  for (int64_t first = 0; first < call.m(); first += rows) {
    run_rows(call, out, device, first, static_cast<int>(std::min(rows, call.m() - first)));
  }
}

}  // namespace

Tensor gemm(Tensor a, Tensor qweight, Tensor scales, std::optional<Tensor> zeros, Tensor slice_rows,
            std::optional<Tensor> columns, std::optional<Tensor> bias, int64_t k, int64_t n,
            int64_t bits, int64_t front_pad, int64_t dequant, bool batch_invariant) {
  const PackedWeight weight = {kFunction, qweight, scales, zeros,     slice_rows, columns,
                               k,         n,       bits,   front_pad, dequant};
  const Call call = {kFunction, a, weight, bias, batch_invariant};
  check(call);
  Tensor out = torch::stable::new_empty(a, {call.m(), n});
  run(call, out);
  return out;
}

void gemm_out(Tensor out, Tensor a, Tensor qweight, Tensor scales, std::optional<Tensor> zeros,
              Tensor slice_rows, std::optional<Tensor> columns, std::optional<Tensor> bias,
              int64_t k, int64_t n, int64_t bits, int64_t front_pad, int64_t dequant,
              bool batch_invariant) {
  const PackedWeight weight = {kFunction, qweight, scales, zeros,     slice_rows, columns,
                               k,         n,       bits,   front_pad, dequant};
  const Call call = {kFunction, a, weight, bias, batch_invariant};
  check(call);
  check_out(call, out);
  run(call, out);
}

}  // namespace padmarlin
