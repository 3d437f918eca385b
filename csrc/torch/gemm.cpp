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
#include "torch/workspace.h"

namespace padmarlin {
namespace {

constexpr uintptr_t kVectorBytes = 16;  // weights, scales and zeros are read 16 bytes at a time

// The arguments of one call by name: what gemm and gemm_out share.
struct Call {
  const char* function;
  const Tensor& a;
  const Tensor& qweight;
  const Tensor& scales;
  const std::optional<Tensor>& zeros;
  const Tensor& slice_rows;
  const std::optional<Tensor>& columns;
  const std::optional<Tensor>& bias;
  int64_t k, n, bits, front_pad, dequant;
  bool batch_invariant;

  Argument argument(const char* name, const Tensor& tensor) const {
    return Argument(function, name, tensor);
  }
  int64_t m() const { return a.size(0); }
  int64_t padded_n() const { return qweight.size(0) * kTile; }
  int64_t padded_k() const { return qweight.size(1) * kTile; }
};

void check_numbers(const Call& call) {
  check_extent(call.function, "k", call.k, 1);
  check_extent(call.function, "n", call.n, 0);
  STD_TORCH_CHECK(call.bits == 4 || call.bits == 8, call.function, ": bits is ", call.bits,
                  ", expected 4 or 8");
  STD_TORCH_CHECK(call.front_pad >= 0 && call.front_pad < kTile, call.function, ": front_pad is ",
                  call.front_pad, ", expected 0 to ", kTile - 1);
  const auto dequant = static_cast<Dequant>(call.dequant);
  STD_TORCH_CHECK(
      dequant == Dequant::kTwoField || dequant == Dequant::kOneField || dequant == Dequant::kWide,
      call.function, ": dequant is ", call.dequant, ", expected 0, 1 or 2");
  STD_TORCH_CHECK(call.bits == 4 || dequant != Dequant::kTwoField, call.function,
                  ": dequant is 0 (two_field) with 8 bits, expected 1 or 2");
  STD_TORCH_CHECK(call.zeros || dequant != Dequant::kWide, call.function,
                  ": dequant is 2 (wide) without zeros, expected a zeros tensor");
}

void check_activations(const Call& call) {
  call.argument("a", call.a)
      .is_on_cuda()
      .has_dim(2)
      .has_shape({call.m(), call.k}, "(m, k)")
      .has_contiguous_rows();
  check_extent(call.function, "the number of rows of a", call.m(), 0);
  const ScalarType dtype = call.a.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Half || dtype == ScalarType::BFloat16, call.function,
                  ": a is ", dtype_name(dtype), ", expected float16 or bfloat16");
}

void check_weight(const Call& call) {
  const auto words = static_cast<int64_t>(tile_words(static_cast<int>(call.bits)));
  call.argument("qweight", call.qweight)
      .is_on_device_of(call.a, "a")
      .has_dtype(ScalarType::Int)
      .has_dim(3)
      .has_shape({call.qweight.size(0), call.qweight.size(1), words},
                 "(padded_n / 64, padded_k / 64, 128 * bits)")
      .is_contiguous()
      .is_aligned(kVectorBytes);
  STD_TORCH_CHECK(call.n == 0 || round_up(call.n, kTile) == call.padded_n(), call.function,
                  ": n is ", call.n, ", expected ", call.padded_n() - kTile + 1, " to ",
                  call.padded_n(), ", the columns of qweight");
  // Without a column table the rows of the weight are a's columns, in their order.
  check_extent(call.function, "padded_k", call.padded_k(),
               call.columns ? kTile : call.front_pad + call.k);

  call.argument("scales", call.scales)
      .is_on_device_of(call.a, "a")
      .has_dtype(call.a.scalar_type())
      .has_dim(2)
      .has_shape({call.scales.size(0), call.padded_n()}, "(scale rows, padded_n)")
      .is_contiguous()
      .is_aligned(kVectorBytes);
  check_extent(call.function, "the number of scale rows", call.scales.size(0), 1);
  if (call.zeros) {
    call.argument("zeros", *call.zeros)
        .is_on_device_of(call.a, "a")
        .has_dtype(ScalarType::Short)
        .has_shape({call.scales.size(0), call.padded_n()}, "the shape of scales")
        .is_contiguous()
        .is_aligned(kVectorBytes);
  }
}

// Sizes only: reading a table's values would stall the stream, so the kernels clamp them.
void check_tables(const Call& call) {
  call.argument("slice_rows", call.slice_rows)
      .is_on_device_of(call.a, "a")
      .has_dtype(ScalarType::Int)
      .has_shape({call.padded_k() / kSlice}, "(padded_k / 16,)")
      .is_contiguous();
  if (call.columns) {
    call.argument("columns", *call.columns)
        .is_on_device_of(call.a, "a")
        .has_dtype(ScalarType::Int)
        .has_shape({call.padded_k()}, "(padded_k,)")
        .is_contiguous();
    STD_TORCH_CHECK(call.front_pad == 0, call.function, ": front_pad is ", call.front_pad,
                    " with columns, expected 0: the column table already says what is padding");
  }
  if (call.bias) {
    call.argument("bias", *call.bias)
        .is_on_device_of(call.a, "a")
        .has_dtype(call.a.scalar_type())
        .has_shape({call.n}, "(n,)")
        .is_contiguous();
  }
}

void check_out(const Call& call, const Tensor& out) {
  call.argument("out", out)
      .is_on_device_of(call.a, "a")
      .has_dtype(call.a.scalar_type())
      .has_shape({call.m(), call.n}, "(m, n)")
      .has_contiguous_rows();
  STD_TORCH_CHECK(row_stride(out) >= call.n, call.function, ": out has row stride ",
                  row_stride(out), ", expected at least n = ", call.n, ": its rows overlap");
}

void check(const Call& call) {
  check_numbers(call);
  check_activations(call);
  check_weight(call);
  check_tables(call);
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
  const int padded_n = static_cast<int>(call.padded_n());
  const int padded_k = static_cast<int>(call.padded_k());
  const GemmProblem problem = {.m = m,
                               .padded_n = padded_n,
                               .padded_k = padded_k,
                               .bits = static_cast<int>(call.bits),
                               .asymmetric = call.zeros.has_value(),
                               .gathers = call.columns.has_value(),
                               .copy_bytes = copy_bytes(a, lda),
                               .batch_invariant = call.batch_invariant,
                               .forced = forced_family(call)};
  STD_TORCH_CHECK(is_computable(problem), call.function, ": a has ", m, " rows and the weight ",
                  call.n, " columns, expected fewer than 2^43 elements of output; split a");
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
      .qweight = static_cast<const uint32_t*>(call.qweight.const_data_ptr()),
      .scales = call.scales.const_data_ptr(),
      .zeros = static_cast<const uint16_t*>(const_data_or_null(call.zeros)),
      .slice_rows = static_cast<const int32_t*>(call.slice_rows.const_data_ptr()),
      .columns = static_cast<const int32_t*>(const_data_or_null(call.columns)),
      .bias = const_data_or_null(call.bias),
      .out = static_cast<uint8_t*>(out.mutable_data_ptr()) + row_offset(out, first),
      .partials = partials ? static_cast<float*>(partials->mutable_data_ptr()) : nullptr,
      .counters = counters > 0 ? split_counters(call.function, call.a.get_device_index(), stream,
                                                device.properties().num_sms, counters)
                               : nullptr,
      .lda = lda,
      .ldc = row_stride(out),
      .m = m,
      .n = static_cast<int>(call.n),
      .k = static_cast<int>(call.k),
      .padded_n = padded_n,
      .padded_k = padded_k,
      .scale_rows = static_cast<int>(call.scales.size(0)),
      .front_pad = static_cast<int>(call.front_pad),
      .bits = static_cast<int>(call.bits),
      .dtype = call.a.scalar_type() == ScalarType::Half ? Dtype::kHalf : Dtype::kBfloat16,
      .dequant = static_cast<Dequant>(call.dequant),
      .overlaps_previous = device.overlaps_kernels(),
  };
  const auto described = [&] {
    return "m = " + std::to_string(m) + ", n = " + std::to_string(call.n) +
           ", k = " + std::to_string(call.k) + ", bits = " + std::to_string(call.bits);
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
constexpr int64_t kRowTile = 640;  // of whole tiles, whatever their rows: 64, 128 or 160

void run(const Call& call, Tensor& out) {
  if (call.m() == 0 || call.n == 0) return;
  const CurrentDevice device(call.function, call.a.get_device_index());
  const int64_t width = call.columns ? call.padded_k() : round_up(call.k, kTmaElements);
  const bool aligned =
      !call.columns && copy_bytes(call.a.const_data_ptr(), row_stride(call.a)) == 16;
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
  const Call call = {"padmarlin.gemm",
                     a,
                     qweight,
                     scales,
                     zeros,
                     slice_rows,
                     columns,
                     bias,
                     k,
                     n,
                     bits,
                     front_pad,
                     dequant,
                     batch_invariant};
  check(call);
  Tensor out = torch::stable::new_empty(a, {call.m(), n});
  run(call, out);
  return out;
}

void gemm_out(Tensor out, Tensor a, Tensor qweight, Tensor scales, std::optional<Tensor> zeros,
              Tensor slice_rows, std::optional<Tensor> columns, std::optional<Tensor> bias,
              int64_t k, int64_t n, int64_t bits, int64_t front_pad, int64_t dequant,
              bool batch_invariant) {
  const Call call = {"padmarlin.gemm",
                     a,
                     qweight,
                     scales,
                     zeros,
                     slice_rows,
                     columns,
                     bias,
                     k,
                     n,
                     bits,
                     front_pad,
                     dequant,
                     batch_invariant};
  check(call);
  check_out(call, out);
  run(call, out);
}

}  // namespace padmarlin
