// SPDX-License-Identifier: Apache-2.0
// round: products with tails to round away, between guard zones, launched and compared bit for bit.
#include "cases.h"
#include "float16.h"
#include "tensor.h"

namespace padmarlin::emulator {
namespace {

enum : uint32_t { kProduct = 21, kBias };

template <Dtype kDtype>
class RoundProblem {
 public:
  explicit RoundProblem(const RoundCase& problem)
      : problem_(problem),
        products_(problem.m, static_cast<int>(round_up(problem.n, 2)), problem.gap),
        out_(problem.m, problem.n, problem.out_gap, problem.out_offset) {
    for (int row = 0; row < problem.m; ++row) {
      for (int n = 0; n < problem.n; ++n) products_.at(row, n) = product(row, n);
    }
    if (!problem.bias) return;
    bias_ = Tensor<uint16_t>(1, problem.n);
    for (int n = 0; n < problem.n; ++n) bias_.at(0, n) = bias(n);
  }

  void launch_kernel(const Schedule& schedule) const {
    const RoundInstance& instance = find_round(problem_.kernel);
    const RoundArguments args = {.products = products_.data(),
                                 .bias = bias_.data(),
                                 .out = out_.data(),
                                 .ldp = products_.pitch(),
                                 .ldo = out_.pitch(),
                                 .m = problem_.m,
                                 .n = problem_.n,
                                 .dtype = kDtype};
    const LaunchOptions options{schedule.seed, schedule.delivery, schedule.resident_blocks, {}};
    // As csrc/cuda/round_kernel.cuh has it: 64 rows of 64 columns for each 256 threads.
    const int blocks = div_up(problem_.m, 64) * div_up(problem_.n, 64);
    launch({"round_kernel", blocks, 1, 256, 0}, options, [&] { instance.round(args); });
  }

  void compare() const {
    const std::string damage = out_.damage();
    if (!damage.empty()) throw Failure("out: " + damage);
    for (int row = 0; row < problem_.m; ++row) {
      for (int n = 0; n < problem_.n; ++n) {
        const float sum =
            problem_.bias ? product(row, n) + to_float<kDtype>(bias(n)) : product(row, n);
        const uint16_t got = out_.at(row, n), want = from_float<kDtype>(sum);
        if (got == want) continue;
        throw Failure("wrong value at row " + std::to_string(row) + ", column " +
                      std::to_string(n) + ": got bits " + std::to_string(got) + ", expected " +
                      std::to_string(want));
      }
    }
  }

 private:
  // 24 random bits: the last 13 (fp16) or 16 (bf16) of them are to be rounded away.
  static float product(int row, int n) {
    return static_cast<int>(mixed(kProduct, row, n) % (1u << 24) - (1u << 23)) * 0x1p-20f;
  }
  static uint16_t bias(int n) {
    return from_float<kDtype>(static_cast<int>(mixed(kBias, n) % 2048) * 0x1p-14f);
  }

  const RoundCase problem_;
  Tensor<float> products_;
  Tensor<uint16_t> bias_, out_;
};

template <Dtype kDtype>
void run_as(const RoundCase& problem, const Schedule& schedule) {
  const RoundProblem<kDtype> made(problem);
  made.launch_kernel(schedule);
  made.compare();
}

}  // namespace

void run(const RoundCase& problem, const Schedule& schedule) {
  problem.kernel.dtype == Dtype::kHalf ? run_as<Dtype::kHalf>(problem, schedule)
                                       : run_as<Dtype::kBfloat16>(problem, schedule);
}

std::string describe(const RoundCase& problem) {
  const auto number = [](const char* name, int value) {
    return std::string(", ") + name + " " + std::to_string(value);
  };
  return "round<" + definition(problem.kernel) + ">" + number("m", problem.m) +
         number("n", problem.n) + number("bias", problem.bias) + number("gap", problem.gap) +
         number("out_offset", problem.out_offset) + number("out_gap", problem.out_gap);
}

}  // namespace padmarlin::emulator
