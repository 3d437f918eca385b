// SPDX-License-Identifier: Apache-2.0
// repack: makes words of each packing between guard zones, launches, compares every output word.
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
        bits_(problem.kernel.bits),
        codes_per_word_(32 / bits_),
        padded_n_(static_cast<int>(round_up(problem.n, kTile))),
        words_(make_words()),
        source_rows_(1, problem.padded_k),
        slice_rows_(1, problem.padded_k / kSlice),
        out_(padded_n_ / kTile * (problem.padded_k / kTile), tile_words(bits_)) {
    for (int row = 0; row < words_.rows(); ++row) {
      for (int i = 0; i < words_.columns(); ++i) words_.at(row, i) = mixed(kCode, row, i);
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
    const RepackInstance& instance = find_repack(problem_.kernel);
    const RepackArguments args{.words = words_.data(),
                               .source_rows = source_rows_.data(),
                               .slice_rows = slice_rows_.data(),
                               .pad_codes = pad_codes_.data(),
                               .out = out_.data(),
                               .ldw = words_.pitch(),
                               .word_rows = words_.rows(),
                               .word_columns = words_.columns(),
                               .packing = problem_.kernel.packing,
                               .first_column = problem_.first_column,
                               .n = problem_.n,
                               .padded_n = padded_n_,
                               .padded_k = problem_.padded_k,
                               .scale_rows = kScaleRows,
                               .bits = bits_,
                               .field_base = problem_.field_base};
    const LaunchOptions options{schedule.seed, schedule.delivery, schedule.resident_blocks, {}};
    launch({"repack_kernel", out_.rows(), 1, 128, 0}, options, [&] { instance.repack(args); });
  }

  void compare() const {
    const std::string damage = out_.damage();
    if (!damage.empty()) throw Failure("out: " + damage);
    std::vector<uint32_t> expected(out_.rows() * out_.columns());
    for (int k = 0; k < problem_.padded_k; ++k) {
      for (int n = 0; n < padded_n_; ++n) {
        const CodePosition at = code_position(problem_.field_base, bits_, k % kTile, n % kTile);
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
  uint32_t codes() const { return 1u << bits_; }

  // ---- the words, as each format has them (written down here without core/packing.h)

  Tensor<uint32_t> make_words() const {
    const int columns = problem_.first_column + problem_.n + problem_.columns_behind;
    switch (problem_.kernel.packing) {
      case Packing::kGptq:
        return {div_up(problem_.k, codes_per_word_), columns, problem_.gap};
      case Packing::kAwq:
        return {problem_.k, div_up(columns, codes_per_word_), problem_.gap};
      case Packing::kCompressedTensors:
        return {columns, div_up(problem_.k, codes_per_word_), problem_.gap};
    }
    return {};
  }

  int held_rows() const {
    switch (problem_.kernel.packing) {
      case Packing::kGptq:
        return words_.rows() * codes_per_word_;
      case Packing::kAwq:
        return words_.rows();
      case Packing::kCompressedTensors:
        return words_.columns() * codes_per_word_;
    }
    return 0;
  }

  uint32_t stored(int row, int column) const {
    constexpr int kAwqNibbles[] = {0, 4, 1, 5, 2, 6, 3, 7};
    const int bit = row % codes_per_word_ * bits_;
    switch (problem_.kernel.packing) {
      case Packing::kGptq:
        return words_.at(row / codes_per_word_, column) >> bit;
      case Packing::kAwq:
        return words_.at(row, column / 8) >> 4 * kAwqNibbles[column % 8];
      case Packing::kCompressedTensors:
        return words_.at(column, row / codes_per_word_) >> bit;
    }
    return 0;
  }

  // ---- what stands where

  // Rows in any order, padding anywhere, one row named that no word holds.
  void make_tables() {
    std::vector<int> order(problem_.padded_k);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [](int a, int b) { return mixed(kOrder, a) < mixed(kOrder, b); });
    for (int k = 0; k < problem_.padded_k; ++k) {
      source_rows_.at(0, k) = order[k] < problem_.k ? order[k] : -1;
    }
    source_rows_.at(0, 5) = held_rows();
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
    if (row >= 0 && row < held_rows() && n < problem_.n) {
      return stored(row, problem_.first_column + n) & (codes() - 1);
    }
    if (!problem_.pad_codes) return codes() / 2;
    const int named = slice_rows_.at(0, k / kSlice);  // outside the table: the last row
    return pad_codes_.at(named >= 0 && named < kScaleRows ? named : kScaleRows - 1, n);
  }

  const RepackCase problem_;
  const int bits_, codes_per_word_, padded_n_;
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
  const auto number = [](const char* name, int value) {
    return std::string(", ") + name + " " + std::to_string(value);
  };
  return "repack<" + definition(problem.kernel) + ">" + number("field_base", problem.field_base) +
         number("k", problem.k) + number("n", problem.n) + number("padded_k", problem.padded_k) +
         number("first_column", problem.first_column) +
         number("columns_behind", problem.columns_behind) + number("gap", problem.gap) +
         number("pad_codes", problem.pad_codes) + number("tampered", problem.tampered);
}

}  // namespace padmarlin::emulator
