// SPDX-License-Identifier: Apache-2.0
// The addition of partial tiles: terms whose fp32 sum depends on the order, and the one order that
// is right.
#include <cmath>
#include <vector>

#include "cases.h"
#include "tensor.h"

namespace padmarlin::emulator {
namespace {

enum : uint32_t { kTerm = 21, kSize };

class FixupProblem {
 public:
  explicit FixupProblem(const FixupCase& problem)
      : problem_(problem),
        partition_(problem.partition),
        elements_(4 * problem.kernel.threads * problem.kernel.vectors),
        terms_(partition_.tiles * partition_.k_tiles, elements_),
        out_(partition_.tiles, elements_),
        partials_(num_partial_slots(partition_), elements_),
        counters_(1, num_counters(partition_)) {
    for (int row = 0; row < terms_.rows(); ++row) {
      for (int i = 0; i < elements_; ++i) {
        // Of sizes so different that nearly every other order of addition shows.
        const int size = static_cast<int>(mixed(kSize, row, i) % 24);
        terms_.at(row, i) = std::ldexp(mixed(kTerm, row, i) / 0x1p32f - 0.5f, size);
      }
    }
    for (int i = 0; i < counters_.columns(); ++i) counters_.at(0, i) = 0;
  }

  void launch_kernel(const Schedule& schedule) {
    const FixupInstance& instance = find_fixup(problem_.kernel);
    for (Tensor<float>* tensor : {&out_, &partials_}) {
      for (int row = 0; row < tensor->rows(); ++row) {
        for (int i = 0; i < elements_; ++i) tensor->at(row, i) = NAN;
      }
    }
    const LaunchOptions options{schedule.seed, schedule.delivery, schedule.resident_blocks, {}};
    const int threads = problem_.kernel.threads + 32;  // a warp of them holds nothing
    launch({"fixup_probe", partition_.blocks, 1, threads, 16}, options, [&] {
      instance.add(partition_, {partials_.data(), counters_.data()}, terms_.data(), out_.data());
    });
  }

  void compare(int launch_number) const {
    const std::string when = " in launch " + std::to_string(launch_number);
    for (const Tensor<float>* tensor : {&out_, &partials_}) {
      const std::string damage = tensor->damage();
      if (!damage.empty())
        throw Failure((tensor == &out_ ? "out: " : "partials: ") + damage + when);
    }
    for (int i = 0; i < counters_.columns(); ++i) {
      if (counters_.at(0, i) == 0) continue;
      throw Failure("counter " + std::to_string(i) + " is left at " +
                    std::to_string(counters_.at(0, i)) + ", expected 0" + when);
    }
    const std::vector<float> expected = sums();
    for (int tile = 0; tile < out_.rows(); ++tile) {
      for (int i = 0; i < elements_; ++i) {
        const float got = out_.at(tile, i), want = expected[tile * elements_ + i];
        if (got == want) continue;
        throw Failure("wrong value in tile " + std::to_string(tile) + ", element " +
                      std::to_string(i) + ": got " + std::to_string(got) + ", expected " +
                      std::to_string(want) + when);
      }
    }
  }

 private:
  // Parts in the order of K; each its terms in the order of K.
  std::vector<float> sums() const {
    std::vector<std::vector<Segment>> parts(partition_.tiles);
    for (int block = 0; block < partition_.blocks; ++block) {
      for (int i = 0; i < num_segments(partition_, block); ++i) {
        const Segment s = segment(partition_, block, i);
        parts[s.tile].resize(s.splits);
        parts[s.tile][s.split] = s;
      }
    }
    std::vector<float> all;
    for (const std::vector<Segment>& tile : parts) {
      for (int i = 0; i < elements_; ++i) {
        float total = 0;
        for (const Segment& part : tile) {
          float sum = 0;
          for (int k = part.k_begin; k < part.k_end; ++k) {
            sum += terms_.at(part.tile * partition_.k_tiles + k, i);
          }
          total = part.split == 0 ? sum : total + sum;
        }
        all.push_back(total);
      }
    }
    return all;
  }

  const FixupCase problem_;
  const Partition partition_;
  const int elements_;
  Tensor<float> terms_, out_, partials_;
  Tensor<uint32_t> counters_;
};

}  // namespace

void run(const FixupCase& problem, const Schedule& schedule) {
  FixupProblem made(problem);
  for (int i = 1; i <= problem.launches; ++i) {
    made.launch_kernel(schedule);
    if (i == problem.launches) made.compare(i);
  }
}

std::string describe(const FixupCase& problem) {
  const Partition& p = problem.partition;
  return "fixup<" + definition(problem.kernel) + ">, tiles " + std::to_string(p.tiles) +
         ", k_tiles " + std::to_string(p.k_tiles) + ", blocks " + std::to_string(p.blocks) +
         ", streamed " + std::to_string(p.streamed) + ", splits " + std::to_string(p.splits);
}

}  // namespace padmarlin::emulator
