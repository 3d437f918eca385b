// SPDX-License-Identifier: Apache-2.0
// padmarlin::gemm and gemm_out on CUDA: checks every size, allocates, launches.
#include "cuda/gemm.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/choice_cache.h"
#include "core/explain.h"
#include "core/forced_kernel.h"
#include "core/select_gemm.h"
#include "cuda/align.h"
#include "torch/checks.h"
#include "torch/device.h"
#include "torch/operators.h"
#include "torch/packed_weight.h"
#include "torch/scratch.h"
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
  const Rows rows = rows_of(a);  // of the activations

  Argument argument(const char* name, const Tensor& tensor) const {
    return Argument(function, name, tensor);
  }
  int64_t m() const { return rows.count; }
};

// Where the result goes.
struct Output {
  Tensor& tensor;
  const Rows rows = rows_of(tensor);
};

// That of the activations, with n columns.
std::vector<int64_t> result_shape(const Call& call) {
  const auto sizes = call.a.sizes();
  std::vector<int64_t> shape(sizes.begin(), sizes.end());
  shape.back() = call.weight.n;
  return shape;
}

void check_activations(const Call& call) {
  const auto sizes = call.a.sizes();
  call.argument("a", call.a).is_on_cuda();
  STD_TORCH_CHECK(!sizes.empty() && sizes[sizes.size() - 1] == call.weight.k, call.function,
                  ": a has shape ", shape_text(call.a), ", expected (..., ", call.weight.k,
                  ") = (..., k)");
  call.argument("a", call.a).has_contiguous_rows().has_one_row_stride(call.rows);
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

void check_out(const Call& call, const Output& out) {
  call.argument("out", out.tensor).is_on_device_of(call.a, "a").has_dtype(call.a.scalar_type());
  const std::vector<int64_t> shape = result_shape(call);
  const auto sizes = out.tensor.sizes();
  STD_TORCH_CHECK(std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end()), call.function,
                  ": out has shape ", shape_text(out.tensor), ", expected ",
                  shape_text(shape.data(), shape.size()), ", that of a with n columns");
  call.argument("out", out.tensor).has_contiguous_rows().has_one_row_stride(out.rows);
  STD_TORCH_CHECK(out.rows.stride >= call.weight.n, call.function, ": out has row stride ",
                  out.rows.stride, ", expected at least n = ", call.weight.n, ": its rows overlap");
}

void check(const Call& call) {
  call.weight.check_numbers();
  check_activations(call);
  call.weight.check_tensors(call.a, "a");
  check_bias(call);
}

constexpr int64_t kElementBytes = 2;

std::optional<Family> forced_family(const Call& call) {
  const KernelRequest* const request = kernel_request().load(std::memory_order_relaxed);
  STD_TORCH_CHECK(request != nullptr, call.function, ": PADMARLIN_KERNEL is '", kernel_variable(),
                  "', expected ", kKernelRequestNames, "; unset it");
  return request->family;
}

// torch has refused the scratch's matmul once (docs/scratch.md says when it does): what it was
// asked for does not change, so it is not asked again.
std::atomic<bool>& scratch_was_refused() {
  static std::atomic<bool> refused{false};
  return refused;
}

bool forbids_scratch(const Call& call, std::optional<Family> forced) {
  const std::optional<bool> permission = scratch_permission();
  STD_TORCH_CHECK(permission, call.function, ": PADMARLIN_SCRATCH is '", scratch_variable(),
                  "', expected 0 or 1; unset it");
  const bool refused = scratch_was_refused().load(std::memory_order_relaxed);
  return !*permission || (refused && forced != Family::kScratch);
}

const void* activations_from(const Call& call, int64_t row) {
  return static_cast<const uint8_t*>(call.a.const_data_ptr()) +
         row * call.rows.stride * kElementBytes;
}

// A single row has no next one: its odd length must not narrow the copies.
int64_t pitch(const Call& call, int m) { return m > 1 ? call.rows.stride : 0; }

// Of rows [first, first + m).
GemmProblem problem_of(const Call& call, int64_t first, int m) {
  const std::optional<Family> forced = forced_family(call);
  return {.m = m,
          .padded_n = static_cast<int>(call.weight.padded_n()),
          .padded_k = static_cast<int>(call.weight.padded_k()),
          .bits = static_cast<int>(call.weight.bits),
          .asymmetric = call.weight.zeros.has_value(),
          .dequant = static_cast<Dequant>(call.weight.dequant),
          .gathers = call.weight.columns.has_value(),
          .copy_bytes = copy_bytes(activations_from(call, first), pitch(call, m), m, call.weight.k),
          .batch_invariant = call.batch_invariant,
          .forced = forced,
          .forbids_scratch = forbids_scratch(call, forced)};
}

void check_choice(const Call& call, const GemmProblem& problem, const Device& device) {
  STD_TORCH_CHECK(is_computable(problem), call.function, ": a has ", problem.m,
                  " rows and the weight ", call.weight.n,
                  " columns, expected fewer than 2^43 elements of output; split a");
  STD_TORCH_CHECK(is_allowed(problem, device), call.function, ": PADMARLIN_KERNEL is '",
                  family_name(*problem.forced), "', expected 'auto' or 'mma': the ",
                  family_name(*problem.forced), " kernel is ", why_not_forced(problem, device));
}

GemmChoice choose(const GemmProblem& problem, const Device& device) {
  static thread_local ChoiceCache choices;
  return choices.choose(problem, device);
}

// Rows [first, first + m) of the output, by a fused kernel.
void run_fused(const Call& call, const Output& out, const CurrentDevice& device, int64_t first,
               int m, const GemmChoice& choice) {
  // From the caching allocator, per call: freed when this returns, reused in stream order, and
  // part of the graph's own pool during a capture.
  std::optional<Tensor> partials;
  if (const int64_t bytes = partials_bytes(choice); bytes > 0) {
    const auto floats = bytes / static_cast<int64_t>(sizeof(float));
    partials = torch::stable::new_empty(out.tensor, {floats}, ScalarType::Float);
  }
  void* const stream = device.stream();
  const int counters = num_counters(choice.partition);

  GemmArguments arguments = {
      .a = activations_from(call, first),
      .qweight = static_cast<const uint32_t*>(call.weight.qweight.const_data_ptr()),
      .scales = call.weight.scales.const_data_ptr(),
      .zeros = static_cast<const uint16_t*>(const_data_or_null(call.weight.zeros)),
      .slice_rows = static_cast<const int32_t*>(call.weight.slice_rows.const_data_ptr()),
      .columns = static_cast<const int32_t*>(const_data_or_null(call.weight.columns)),
      .bias = const_data_or_null(call.bias),
      .out = static_cast<uint8_t*>(out.tensor.mutable_data_ptr()) +
             first * out.rows.stride * kElementBytes,
      .partials = partials ? static_cast<float*>(partials->mutable_data_ptr()) : nullptr,
      .counters = counters > 0 ? split_counters(call.function, call.a.get_device_index(), stream,
                                                device.properties().num_sms, counters)
                               : nullptr,
      .lda = pitch(call, m),
      .ldc = out.rows.stride,
      .m = m,
      .n = static_cast<int>(call.weight.n),
      .k = static_cast<int>(call.weight.k),
      .padded_n = static_cast<int>(call.weight.padded_n()),
      .padded_k = static_cast<int>(call.weight.padded_k()),
      .scale_rows = static_cast<int>(call.weight.scales.size(0)),
      .front_pad = static_cast<int>(call.weight.front_pad),
      .bits = static_cast<int>(call.weight.bits),
      .dtype = call.weight.dtype(),
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
    aligned = torch::stable::new_empty(out.tensor, {aligned_bytes(arguments) / 2});
    void* const scratch = aligned->mutable_data_ptr();
    check_launch(call.function, align_activations(arguments, scratch, stream), described);
    arguments = with_aligned(arguments, scratch);
  }
  check_launch(call.function, launch_gemm(arguments, choice, stream), described);
}

// Where A has to be aligned, it is so many bytes at a time.
constexpr int64_t kMaxAlignedBytes = int64_t{256} << 20;
constexpr int64_t kRowTile = 640;  // of whole tiles of the most usual rows: 64, 80, 128, 160

// How many rows a fused kernel gets at a time.
int64_t fused_rows(const Call& call, const GemmProblem& problem) {
  if (!needs_alignment(problem)) return call.m();
  const int64_t width =
      call.weight.columns ? call.weight.padded_k() : round_up(call.weight.k, kTmaElements);
  return std::max(kMaxAlignedBytes / (2 * width) / kRowTile, int64_t{1}) * kRowTile;
}

// Whether the scratch has computed all of `out`.
bool run_scratch(const Call& call, const Output& out, const CurrentDevice& device,
                 const GemmProblem& problem, const GemmChoice& choice) {
  const Tensor a =
      call.a.dim() == 2 ? call.a : torch::stable::view(call.a, {call.m(), call.weight.k});
  const ScratchCall scratch = {a, call.weight, call.bias, out.tensor, out.rows.stride};
  if (multiply_by_scratch(scratch, choice, device.stream())) return true;
  STD_TORCH_CHECK(problem.forced != Family::kScratch, call.function,
                  ": PADMARLIN_KERNEL is 'scratch', but torch refuses a product of ",
                  dtype_name(call.a.scalar_type()),
                  " matrices in float32 (it has printed why); unset PADMARLIN_KERNEL, or see "
                  "docs/scratch.md for the settings of torch that forbid it");
  scratch_was_refused().store(true, std::memory_order_relaxed);
  return false;
}

void run(const Call& call, const Output& out) {
  if (call.m() == 0 || call.weight.n == 0) return;
  const CurrentDevice device(call.function, call.a.get_device_index());
  const Device properties = device.properties();
  GemmProblem whole = problem_of(call, 0, static_cast<int>(call.m()));
  check_choice(call, whole, properties);
  GemmChoice choice = choose(whole, properties);
  if (choice.family == Family::kScratch) {
    if (run_scratch(call, out, device, whole, choice)) return;
    whole.forbids_scratch = true;
    choice = choose(whole, properties);
  }
  const int64_t rows = fused_rows(call, whole);
  if (rows >= call.m()) return run_fused(call, out, device, 0, whole.m, choice);
  for (int64_t first = 0; first < call.m(); first += rows) {
    GemmProblem part = problem_of(call, first, static_cast<int>(std::min(rows, call.m() - first)));
    part.forbids_scratch = true;
    run_fused(call, out, device, first, part.m, choose(part, properties));
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
  Tensor out = torch::stable::new_empty(a, result_shape(call));
  run(call, {out});
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
  const Output output = {out};
  check_out(call, output);
  run(call, output);
}

}  // namespace padmarlin
