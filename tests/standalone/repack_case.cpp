// SPDX-License-Identifier: Apache-2.0
// repack: makes GPTQ words between guard zones, launches, compares every output word.
#include <algorithm>
#include <numeric>
#include <vector>

#include "cases.h"
#include "tensor.h"

namespace padmarlin::emulator {
namespace {

enum : uint32_t { kCode = 11, kPad, kOrder, kRow };

constexpr int kScaleRows = 3;

class RepackProblem {
 public:
  explicit RepackProblem(const RepackCase& problem)
      : problem_(problem),
        codes_per_word_(32 / problem.bits),
        padded_n_(static_cast<int>(round_up(problem.n, kTile))),
        words_(div_up(problem.k, codes_per_word_), problem.n, problem.gap),
        source_rows_(1, problem.padded_k),
        slice_rows_(1, problem.padded_k / kSlice),
        out_(padded_n_ / kTile * (problem.padded_k / kTile), tile_words(problem.bits)) {
    for (int row = 0; row < words_.rows(); ++row) {
      for (int n = 0; n < problem_.n; ++n) words_.at(row, n) = mixed(kCode, row, n);
    }
    make_tables();
    if (problem_.pad_codes) {
      pad_codes_ = Tensor<uint8_t>(kScaleRows, padded_n_);
      for (int row = 0; row < kScaleRows; ++row) {
        for (int n = 0; n < padded_n_; ++n) {
          pad_codes_.at(row, n) = static_cast<uint8_t>(mixed(kPad, row, n) % codes());
        }
      }
    }
  }

  void launch_kernel(const Schedule& schedule) {
    const RepackInstance& instance = find_repack(problem_.bits);
    const RepackArguments args{.qweight = words_.data(),
                               .source_rows = source_rows_.data(),
                               .slice_rows = slice_rows_.data(),
                               .pad_codes = pad_codes_.data(),
                               .out = out_.data(),
                               .ldw = words_.pitch(),
                               .source_words = words_.rows(),
                               .n = problem_.n,
                               .padded_n = padded_n_,
                               .padded_k = problem_.padded_k,
                               .scale_rows = kScaleRows,
                               .bits = problem_.bits,
                               .field_base = problem_.field_base};
    const LaunchOptions options{schedule.seed, schedule.delivery, schedule.resident_blocks, {}};
    launch({"repack_gptq_kernel", out_.rows(), 1, 128, 0}, options, [&] { instance.repack(args); });
  }

  void compare() const {
    const std::string damage = out_.damage();
    if (!damage.empty()) throw Failure("out: " + damage);
    std::vector<uint32_t> expected(out_.rows() * out_.columns());
    for (int k = 0; k < problem_.padded_k; ++k) {
      for (int n = 0; n < padded_n_; ++n) {
        const CodePosition at =
            code_position(problem_.field_base, problem_.bits, k % kTile, n % kTile);
        const int tile = n / kTile * (problem_.padded_k / kTile) + k / kTile;
        expected[tile * out_.columns() + at.word] |= rotate16(code(k, n), at.bit) << 16 * at.half;
      }
    }
    for (int tile = 0; tile < out_.rows(); ++tile) {
      for (int word = 0; word < out_.columns(); ++word) {
        const uint32_t got = out_.at(tile, word), want = expected[tile * out_.columns() + word];
        if (got == want) continue;
        throw Failure("wrong value in tile " + std::to_string(tile) + ", word " +
                      std::to_string(word) + ": got " + std::to_string(got) + ", expected " +
                      std::to_string(want));
      }
    }
  }

 private:
  uint32_t codes() const { return 1u << problem_.bits; }

  // Rows in any order, padding anywhere, one row named that no word holds.
  void make_tables() {
    std::vector<int> order(problem_.padded_k);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [](int a, int b) { return mixed(kOrder, a) < mixed(kOrder, b); });
    for (int k = 0; k < problem_.padded_k; ++k) {
      source_rows_.at(0, k) = order[k] < problem_.k ? order[k] : -1;
    }
    source_rows_.at(0, 5) = words_.rows() * codes_per_word_;
    for (int slice = 0; slice < slice_rows_.columns(); ++slice) {
      slice_rows_.at(0, slice) = static_cast<int>(mixed(kRow, slice) % kScaleRows);
    }
    if (!problem_.tampered) return;
    slice_rows_.at(0, 1) = 1 << 30;
    slice_rows_.at(0, 2) = -5;
    source_rows_.at(0, 7) = 1 << 30;
    source_rows_.at(0, 9) = -(1 << 30);
  }

  uint32_t code(int k, int n) const {
    const int row = source_rows_.at(0, k);
    if (row >= 0 && row < words_.rows() * codes_per_word_ && n < problem_.n) {
      return words_.at(row / codes_per_word_, n) >> row % codes_per_word_ * problem_.bits &
             (codes() - 1);
    }
    if (!problem_.pad_codes) return codes() / 2;
    const int named = slice_rows_.at(0, k / kSlice);  // outside the table: the last row
    return pad_codes_.at(named >= 0 && named < kScaleRows ? named : kScaleRows - 1, n);
  }

  const RepackCase problem_;
  const int codes_per_word_, padded_n_;
  Tensor<uint32_t> words_;
  Tensor<int32_t> source_rows_, slice_rows_;
  Tensor<uint8_t> pad_codes_;
  Tensor<uint32_t> out_;
};

}  // namespace

void run(const RepackCase& problem, const Schedule& schedule) {
  RepackProblem made(problem);
  made.launch_kernel(schedule);
  made.compare();
}

std::string describe(const RepackCase& problem) {
  return "repack<" + std::to_string(problem.bits) + ">, field_base " +
         std::to_string(problem.field_base) + ", k " + std::to_string(problem.k) + ", n " +
         std::to_string(problem.n) + ", padded_k " + std::to_string(problem.padded_k) + ", gap " +
         std::to_string(problem.gap) + ", pad_codes " + std::to_string(problem.pad_codes) +
         ", tampered " + std::to_string(problem.tampered);
}

}  // namespace padmarlin::emulator
