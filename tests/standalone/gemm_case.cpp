// SPDX-License-Identifier: Apache-2.0
// gemm: makes the tensors of a case between guard zones, launches, compares.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cases.h"
#include "float16.h"
#include "tensor.h"

namespace padmarlin::emulator {
namespace {

// Salts of `mixed`, one per kind of random number.
enum : uint32_t { kCode = 1, kZero, kScale, kActivation, kGroup, kBias };

template <Dtype kDtype>
class GemmProblem {
 public:
  explicit GemmProblem(const GemmCase& problem) : problem_(problem), key_(problem.kernel) {
    map_rows();
    make_weight();
    make_activations();
    if (problem_.bias) {
      bias_ = Tensor<uint16_t>(1, problem_.n);
      // A quarter of the sums' unit: it decides roundings.
      for (int n = 0; n < problem_.n; ++n) {
        bias_.at(0, n) = to16((mixed(kBias, n) % 64 - 31.0f) * base_scale() / 16);
      }
    }
    const int rows = problem_.dequantize ? problem_.k : problem_.m;
    out_ = Tensor<uint16_t>(rows, problem_.n, problem_.out_gap, problem_.out_offset);
    choose();
    partials_ = Tensor<float>(1, static_cast<int>(partials_bytes(choice_) / sizeof(float)));
    counters_ = Tensor<uint32_t>(1, num_counters(choice_.partition));
    std::fill_n(counters_.data(), counters_.columns(), 0);
  }

  void launch_kernel(const Schedule& schedule) {
    const GemmArguments args = arguments();
    LaunchOptions options{schedule.seed, schedule.delivery, schedule.resident_blocks, {}, true};
    a_.append_regions(options.regions);
    qweight_.append_regions(options.regions);
    scales_.append_regions(options.regions);
    if (zeros_.data() != nullptr) zeros_.append_regions(options.regions);
    const bool wgmma = choice_.family == Family::kWgmma;
    const LaunchShape shape = {wgmma ? "wgmma_kernel" : "gemm_kernel", choice_.partition.blocks, 1,
                               choice_.threads, static_cast<size_t>(choice_.shared_bytes)};
    const Statistics accesses = problem_.dequantize ? launch_dequantize(options)
                                : wgmma             ? launch_wgmma(shape, options, args)
                                                    : launch_mma(shape, options, args);
    for (const auto& [instruction, count] : accesses) {
      if (count.extra_wavefronts == 0) continue;
      throw Failure("bank conflicts: " + std::to_string(count.extra_wavefronts) +
                    " extra wavefronts in " + std::to_string(count.instructions) + " " +
                    instruction);
    }
  }

  void compare() const {
    check_guards(out_, "out");
    check_guards(partials_, "partials");
    check_guards(counters_, "counters");
    check_guards(aligned_, "aligned");
    for (int i = 0; i < counters_.columns(); ++i) {
      if (counters_.at(0, i) == 0) continue;
      throw Failure("counter " + std::to_string(i) + " is left at " +
                    std::to_string(counters_.at(0, i)) + ", expected 0");
    }
    for (int row = 0; row < out_.rows(); ++row) {
      for (int n = 0; n < problem_.n; ++n) {
        const float got = to_float<kDtype>(out_.at(row, n));
        const float want = problem_.dequantize ? dequantized(row, n) : expected(row, n);
        if (got == want || (std::isnan(got) && std::isnan(want))) continue;
        throw Failure((std::isnan(got) ? "NaN" : "wrong value") + std::string(" at row ") +
                      std::to_string(row) + ", column " + std::to_string(n) + ": got " +
                      std::to_string(got) + ", expected " + std::to_string(want));
      }
    }
  }

 private:
  static uint16_t to16(float value) { return from_float<kDtype>(value); }
  static float rounded(float value) { return to_float<kDtype>(to16(value)); }

  int padded_n() const { return static_cast<int>(round_up(problem_.n, kTile)); }
  int padded_k() const { return static_cast<int>(columns_of_rows_.size()); }
  int groups() const { return groups_; }

  // ---- the block and the partition

  GemmChoice choose_mma() const {
    const BlockShape shape{key_.m_steps, problem_.column_warps, problem_.k_groups};
    const int m_tiles = div_up(problem_.m, block_rows(shape));
    const int n_tiles = div_up(padded_n(), block_columns(shape));
    const int tiles = m_tiles * n_tiles, k_tiles = padded_k() / kTile;
    const Partition partition =
        problem_.splits > 1   ? split_k(tiles, k_tiles, tiles * problem_.splits, problem_.splits)
        : problem_.blocks > 0 ? stream_k(tiles, k_tiles, problem_.blocks, tiles)
                              : data_parallel(tiles, k_tiles, tiles);
    return {.shape = shape,
            .tile_m = block_rows(shape),
            .tile_n = block_columns(shape),
            .threads = block_threads(shape),
            .stages = kStages,
            .shared_bytes = shared_bytes(key_.bits, key_.asymmetric, shape),
            .partition = partition,
            .m_tiles = m_tiles,
            .n_tiles = n_tiles,
            .band = 2};
  }

  GemmChoice choose_wgmma() const {
    const auto shared = wgmma::shared_layout(problem_.wgmma_rows, key_.bits, key_.asymmetric);
    const int m_tiles = div_up(problem_.m, problem_.wgmma_rows);
    const int n_tiles = div_up(padded_n(), wgmma::kBlockColumns);
    const int tiles = m_tiles * n_tiles, k_tiles = padded_k() / kTile;
    return {.family = Family::kWgmma,
            .tile_m = problem_.wgmma_rows,
            .tile_n = wgmma::kBlockColumns,
            .threads = wgmma::kThreads,
            .stages = shared.stages,
            .shared_bytes = shared.bytes,
            .partition = problem_.splits > 1
                             ? split_k(tiles, k_tiles, problem_.blocks, problem_.splits)
                             : stream_k(tiles, k_tiles, problem_.blocks, problem_.streamed),
            .m_tiles = m_tiles,
            .n_tiles = n_tiles,
            .band = 2};
  }

  void choose() {
    choice_ = problem_.wgmma_rows > 0 ? choose_wgmma() : choose_mma();
    const Partition& partition = choice_.partition;
    const int m_tiles = choice_.m_tiles, n_tiles = choice_.n_tiles, tiles = m_tiles * n_tiles;
    // By tile: where the parts of K begin and end, in their order.
    parts_.resize(tiles);
    for (int block = 0; block < partition.blocks; ++block) {
      for (int i = 0; i < num_segments(partition, block); ++i) {
        const Segment part = segment(partition, block, i);
        parts_[part.tile].emplace_back(part.k_begin, part.k_end);
      }
    }
    for (auto& parts : parts_) std::sort(parts.begin(), parts.end());
    tile_at_.resize(tiles);
    for (int tile = 0; tile < tiles; ++tile) {
      const TilePosition at = tile_position(tile, m_tiles, n_tiles, choice_.band);
      tile_at_[at.n * m_tiles + at.m] = tile;
    }
  }

  // ---- which column of A, if any, and which group each padded row belongs to

  void map_rows() {
    const int k = problem_.k;
    if (problem_.act_order) {
      groups_ = div_up(k, problem_.group_size);
      for (int group = 0; group < groups_; ++group) {
        for (int column = 0; column < k; ++column) {
          if (static_cast<int>(mixed(kGroup, column) % groups_) == group) add_row(column, group);
        }
        while (columns_of_rows_.size() % kSlice) add_row(-1, group);
      }
    } else {
      for (int row = 0; row < problem_.front_pad + k; ++row) {
        add_row(std::max(row - problem_.front_pad, -1), row / problem_.group_size);
      }
      groups_ = group_of_rows_.back() + 1;
    }
    while (columns_of_rows_.size() % kTile) add_row(-1, group_of_rows_.back());
    slice_rows_ = Tensor<int32_t>(1, padded_k() / kSlice);
    // Scale rows in reverse: the order of groups is the table's business.
    for (int slice = 0; slice < slice_rows_.columns(); ++slice) {
      slice_rows_.at(0, slice) = groups_ - 1 - group_of_rows_[slice * kSlice];
    }
    if (problem_.act_order) {
      columns_ = Tensor<int32_t>(1, padded_k());
      for (int row = 0; row < padded_k(); ++row) columns_.at(0, row) = columns_of_rows_[row];
    }
    if (problem_.tampered) tamper();
  }

  void add_row(int column, int group) {
    columns_of_rows_.push_back(column);
    group_of_rows_.push_back(group);
  }

  // A scale row beyond the table means the last; a column beyond A, none.
  void tamper() {
    for (const auto& [slice, named] : {std::pair{1, 1 << 30}, {2, -5}}) {
      slice_rows_.at(0, slice) = named;
      std::fill_n(group_of_rows_.begin() + slice * kSlice, kSlice, 0);
    }
    if (columns_.data() == nullptr) return;
    for (const auto& [row, named] : {std::pair{3, 1 << 30}, {4, -9}, {5, problem_.k}}) {
      columns_.at(0, row) = named;
      columns_of_rows_[row] = -1;
    }
  }

  // ---- the weight. Padded rows hold codes too: the kernel must multiply them by zeros.

  int segment_rows() const { return padded_k() / 3; }  // kOrdered: rows that repeat
  int repeated(int row) const {
    return problem_.values == Values::kOrdered ? row % segment_rows() : row;
  }

  uint32_t code(int row, int n) const { return mixed(kCode, repeated(row), n) % (1u << key_.bits); }
  int zero(int group, int n) const {
    if (!key_.asymmetric) return 1 << (key_.bits - 1);
    const int seen = problem_.values == Values::kOrdered ? 0 : group;
    return static_cast<int>(mixed(kZero, seen, n) % (1u << key_.bits));
  }

  int exponent(int n) const {
    if (key_.dequant == Dequant::kWide) return 0;
    return unit_exponent(key_.dtype) - read_bit(key_.dtype, key_.bits, key_.dequant, n % 16 / 8);
  }

  // The largest power of two whose stored form is finite in all columns.
  float base_scale() const {
    const int largest = key_.dtype == Dtype::kHalf ? 15 : 127;
    return key_.dequant == Dequant::kWide
               ? 0.125f
               : std::ldexp(1.0f, largest - std::max(exponent(0), exponent(8)));
  }

  float scale(int group, int n) const {
    const uint32_t random = mixed(kScale, group, n);
    const float sign = random & 1 ? -1.0f : 1.0f;
    switch (problem_.values) {
      case Values::kIntegers:
        return sign * std::ldexp(base_scale(), -static_cast<int>(random / 2 % 3));
      case Values::kOneHot:
        return sign * rounded(base_scale() * (0.5f + random / 2 % 512 / 1024.0f));
      case Values::kOrdered:
        return group == 1 ? 1.0f : group == 0 ? 0x1p24f : -0x1p24f;
    }
    return 0;
  }

  float weight(int row, int n) const {
    const int group = group_of_rows_[row];
    return rounded((static_cast<int>(code(row, n)) - zero(group, n)) * scale(group, n));
  }

  void make_weight() {
    const int base = field_base(key_.dtype, key_.bits), words = tile_words(key_.bits);
    qweight_ = Tensor<uint32_t>(padded_n() / kTile * (padded_k() / kTile), words);
    std::fill_n(qweight_.data(), qweight_.rows() * words, 0);
    for (int row = 0; row < padded_k(); ++row) {
      for (int n = 0; n < padded_n(); ++n) {
        const CodePosition at = code_position(base, key_.bits, row % kTile, n % kTile);
        const int tile = n / kTile * (padded_k() / kTile) + row / kTile;
        qweight_.at(tile, at.word) |= rotate16(code(row, n), at.bit) << 16 * at.half;
      }
    }
    scales_ = Tensor<uint16_t>(groups(), padded_n());
    if (key_.asymmetric) zeros_ = Tensor<uint16_t>(groups(), padded_n());
    for (int group = 0; group < groups(); ++group) {
      const int row = groups() - 1 - group;
      for (int n = 0; n < problem_.n; ++n) {  // padded columns keep NaN scales
        const int at = n / kTile * kTile + scale_position(n % kTile);
        scales_.at(row, at) = to16(std::ldexp(scale(group, n), exponent(n)));
        const int bit = read_bit(key_.dtype, key_.bits, key_.dequant, n % 16 / 8);
        if (key_.asymmetric) zeros_.at(row, at) = static_cast<uint16_t>(zero(group, n) << bit);
      }
    }
  }

  // ---- the activations

  float activation(int row, int column) const {
    if (problem_.values == Values::kOneHot) return column == (37 * row + 11) % problem_.k ? 1 : 0;
    return static_cast<int>(mixed(kActivation, row, repeated(column)) % 5) - 2.0f;
  }

  void make_activations() {
    a_ = Tensor<uint16_t>(problem_.m, problem_.k, problem_.a_gap, problem_.a_offset);
    for (int row = 0; row < problem_.m; ++row) {
      for (int column = 0; column < problem_.k; ++column) {
        a_.at(row, column) = to16(activation(row, column));
      }
    }
  }

  // ---- launch and compare

  Statistics launch_mma(const LaunchShape& shape, const LaunchOptions& options,
                        const GemmArguments& args) const {
    const GemmInstance& instance = find_gemm(key_);
    return launch(shape, options, [&] { instance.gemm(args, choice_); });
  }

  // As csrc/torch has it: A is aligned first if need be.
  Statistics launch_wgmma(const LaunchShape& shape, const LaunchOptions& options,
                          GemmArguments args) {
    const WgmmaInstance& instance =
        find_wgmma({key_.dtype, key_.bits, key_.dequant, key_.asymmetric, problem_.wgmma_rows});
    LaunchOptions own = options;
    if (args.columns != nullptr || copy_bytes(args.a, args.lda, args.m, args.k) < 16) {
      const int width = aligned_width(args);
      aligned_ = Tensor<uint16_t>(args.m, width);
      aligned_.append_regions(own.regions);
      // As csrc/cuda/align_kernel.cuh has it: 256 threads, 8 columns of 4 rows each.
      launch({"align_kernel", div_up(args.m, 4) * div_up(width, 8 * 256), 1, 256, 0}, options, [&] {
        const AlignArguments pass = {args.a, args.columns, aligned_.data(), args.lda, args.m,
                                     args.k, width};
        args.columns != nullptr ? instance.gather(pass) : instance.align(pass);
      });
      args = with_aligned(args, aligned_.data());
    }
    const TensorMap map = {static_cast<const uint16_t*>(args.a), args.k, args.m, args.lda * 2,
                           problem_.wgmma_rows};
    return launch(shape, own, [&] { instance.gemm(args, choice_, map); });
  }

  Statistics launch_dequantize(const LaunchOptions& options) const {
    const DequantizeArguments args = {.qweight = qweight_.data(),
                                      .scales = scales_.data(),
                                      .zeros = zeros_.data(),
                                      .slice_rows = slice_rows_.data(),
                                      .columns = columns_.data(),
                                      .out = out_.data(),
                                      .lds = padded_n(),
                                      .ldo = out_.pitch(),
                                      .n = problem_.n,
                                      .k = problem_.k,
                                      .padded_k = padded_k(),
                                      .scale_rows = groups(),
                                      .front_pad = problem_.front_pad,
                                      .bits = key_.bits,
                                      .dtype = key_.dtype,
                                      .dequant = key_.dequant};
    // As csrc/cuda/dequantize_kernel.cuh has it: a block for each tile, 128 threads.
    const int blocks = padded_n() / kTile * (padded_k() / kTile);
    const DequantizeInstance& instance = find_dequantize(dequantize_key(problem_));
    return launch({"dequantize_kernel", blocks, 1, 128, kDequantizeSharedBytes}, options,
                  [&] { instance.dequantize(args); });
  }

  // Of a logical row; NaN, as before the launch, if no padded row is that.
  float dequantized(int row, int n) const {
    const auto at = std::find(columns_of_rows_.begin(), columns_of_rows_.end(), row);
    if (at == columns_of_rows_.end()) return std::nanf("");
    return weight(static_cast<int>(at - columns_of_rows_.begin()), n);
  }

  GemmArguments arguments() const {
    return {.a = a_.data(),
            .qweight = qweight_.data(),
            .scales = scales_.data(),
            .zeros = zeros_.data(),
            .slice_rows = slice_rows_.data(),
            .columns = columns_.data(),
            .bias = bias_.data(),
            .out = out_.data(),
            .partials = partials_.data(),
            .counters = counters_.data(),
            .lda = a_.pitch(),
            .ldc = out_.pitch(),
            .m = problem_.m,
            .n = problem_.n,
            .k = problem_.k,
            .padded_n = padded_n(),
            .padded_k = padded_k(),
            .scale_rows = groups(),
            .front_pad = problem_.front_pad,
            .bits = key_.bits,
            .dtype = key_.dtype,
            .dequant = key_.dequant,
            .overlaps_previous = true};
  }

  // What one group of warps adds is exact. The groups' sums are added in their order, the sums of
  // the parts of K in the order of K; one rounding.
  float expected(int row, int n) const {
    const int at = n / choice_.tile_n * choice_.m_tiles + row / choice_.tile_m;
    float total = 0;
    for (const auto& [begin, end] : parts_[tile_at_[at]]) {
      float part = 0;
      for (int group = 0; group < problem_.k_groups; ++group) {
        double sum = 0;
        for (int tile = begin + group; tile < end; tile += problem_.k_groups) {
          for (int k = tile * kTile; k < (tile + 1) * kTile; ++k) {
            const int column = columns_of_rows_[k];
            if (column >= 0) sum += static_cast<double>(activation(row, column)) * weight(k, n);
          }
        }
        part += static_cast<float>(sum);
      }
      total += part;
    }
    if (problem_.bias) total += to_float<kDtype>(bias_.at(0, n));
    return rounded(total);
  }

  template <typename T>
  static void check_guards(const Tensor<T>& tensor, const char* name) {
    const std::string damage = tensor.damage();
    if (!damage.empty()) throw Failure(std::string(name) + ": " + damage);
  }

  const GemmCase problem_;
  const GemmKey key_;
  int groups_ = 0;
  std::vector<int> columns_of_rows_, group_of_rows_;
  Tensor<uint16_t> a_, aligned_, scales_, zeros_, bias_, out_;
  Tensor<uint32_t> qweight_;
  Tensor<int32_t> slice_rows_, columns_;
  Tensor<float> partials_;
  Tensor<uint32_t> counters_;
  GemmChoice choice_ = {};
  std::vector<std::vector<std::pair<int, int>>> parts_;
  std::vector<int> tile_at_;
};

template <Dtype kDtype>
void run_as(const GemmCase& problem, const Schedule& schedule) {
  GemmProblem<kDtype> made(problem);
  for (int i = 0; i < problem.launches; ++i) made.launch_kernel(schedule);
  made.compare();
}

}  // namespace

void run(const GemmCase& problem, const Schedule& schedule) {
  problem.kernel.dtype == Dtype::kHalf ? run_as<Dtype::kHalf>(problem, schedule)
                                       : run_as<Dtype::kBfloat16>(problem, schedule);
}

std::string describe(const GemmCase& problem) {
  const auto number = [](const char* name, int value) {
    return std::string(", ") + name + " " + std::to_string(value);
  };
  return (problem.dequantize ? "dequantize<" : "gemm<") + definition(problem.kernel) + ">" +
         number("m", problem.m) + number("n", problem.n) + number("k", problem.k) +
         number("group", problem.group_size) + number("front_pad", problem.front_pad) +
         number("act_order", problem.act_order) + number("bias", problem.bias) +
         number("a_offset", problem.a_offset) + number("a_gap", problem.a_gap) +
         number("out_offset", problem.out_offset) + number("out_gap", problem.out_gap) +
         number("column_warps", problem.column_warps) + number("k_groups", problem.k_groups) +
         number("blocks", problem.blocks) + number("splits", problem.splits) +
         number("wgmma_rows", problem.wgmma_rows) + number("streamed", problem.streamed) +
         number("launches", problem.launches) + number("values", static_cast<int>(problem.values)) +
         number("tampered", problem.tampered);
}

}  // namespace padmarlin::emulator
