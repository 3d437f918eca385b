// SPDX-License-Identifier: Apache-2.0
// The kernels without Python, for sanitizers and planted bugs:
//   checks [--list | --instances] [--seeds N] [NAME...]
// Runs the named tests (all by default), each case under three schedules, or with --seeds under N
// random ones with every block resident. Ends with 1 at the first failure and says which. A name
// that ends with * stands for all that begin so.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

#include "checks.h"

namespace padmarlin::emulator {

std::string describe(const Schedule& schedule) {
  const char* const deliveries[] = {"eager", "late", "random"};
  return "seed " + std::to_string(schedule.seed) + ", " +
         deliveries[static_cast<int>(schedule.delivery)] + " copies, " +
         std::to_string(schedule.resident_blocks) + " resident blocks";
}

// Two rounds of the finalizer of MurmurHash3: every bit of the input reaches every bit.
uint32_t mixed(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t x = a * 0x9e3779b9u + b * 0x85ebca6bu + c * 0xc2b2ae35u + 0x27d4eb2fu;
  for (int round = 0; round < 2; ++round) {
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    x ^= x >> 16;
  }
  return x;
}

namespace {

constexpr int kAllBlocks = 1 << 20;

std::vector<Schedule> schedules(int seeds) {
  if (seeds == 0) {
    return {{0, Delivery::kLate, 1}, {3, Delivery::kEager, 2}, {4, Delivery::kRandom, kAllBlocks}};
  }
  std::vector<Schedule> made;
  const Delivery deliveries[] = {Delivery::kEager, Delivery::kLate, Delivery::kRandom};
  for (int seed = 0; seed < seeds; ++seed) {
    made.push_back({static_cast<uint64_t>(seed), deliveries[seed % 3], kAllBlocks});
  }
  return made;
}

bool matches(const std::string& name, const std::string& pattern) {
  if (!pattern.ends_with('*')) return name == pattern;
  return name.starts_with(pattern.substr(0, pattern.size() - 1));
}

template <typename Case>
int run_all(const std::string& check, const std::vector<Case>& cases, int seeds) {
  int runs = 0;
  for (const Case& problem : cases) {
    for (const Schedule& schedule : schedules(seeds)) {
      try {
        run(problem, schedule);
        ++runs;
      } catch (const std::exception& error) {
        const bool wrong = dynamic_cast<const Failure*>(&error) != nullptr;
        std::printf("FAILED %s: %s%s\n  %s\n  %s\n", check.c_str(),
                    wrong ? "" : "emulator report: ", error.what(), describe(problem).c_str(),
                    describe(schedule).c_str());
        std::exit(1);
      }
    }
  }
  return runs;
}

void print_instances(const std::vector<Check>& selected) {
  std::set<std::string> lines;
  for (const Check& check : selected) {
    for (const GemmCase& problem : check.gemms) {
      const GemmKey& key = problem.kernel;
      const WgmmaKey wgmma = {key.dtype, key.bits, key.dequant, key.asymmetric, problem.wgmma_rows};
      lines.insert(check.name + (problem.dequantize
                                     ? " dequantize " + definition(dequantize_key(problem))
                                 : problem.wgmma_rows > 0 ? " wgmma " + definition(wgmma)
                                                          : " gemm " + definition(key)));
    }
    for (const FixupCase& problem : check.fixups) {
      lines.insert(check.name + " fixup " + definition(problem.kernel));
    }
    for (const RepackCase& problem : check.repacks) {
      lines.insert(check.name + " repack " + definition(problem.kernel));
    }
    for (const RoundCase& problem : check.rounds) {
      lines.insert(check.name + " round " + definition(problem.kernel));
    }
  }
  for (const std::string& line : lines) std::puts(line.c_str());
}

std::vector<Check> select(const std::vector<std::string>& patterns) {
  if (patterns.empty()) return checks();
  std::vector<Check> selected;
  for (const std::string& pattern : patterns) {
    const size_t before = selected.size();
    for (const Check& check : checks()) {
      if (matches(check.name, pattern)) selected.push_back(check);
    }
    if (selected.size() == before) {
      std::fprintf(stderr, "no test is called %s; --list names them\n", pattern.c_str());
      std::exit(2);
    }
  }
  return selected;
}

}  // namespace

int main_program(int count, char** arguments) {
  bool list = false, instances = false;
  int seeds = 0;
  std::vector<std::string> patterns;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument == "--list") {
      list = true;
    } else if (argument == "--instances") {
      instances = true;
    } else if (argument == "--seeds" && i + 1 < count) {
      seeds = std::atoi(arguments[++i]);
    } else {
      patterns.push_back(argument);
    }
  }
  const std::vector<Check> selected = select(patterns);
  if (list) {
    for (const Check& check : selected) std::puts(check.name.c_str());
    return 0;
  }
  if (instances) {
    print_instances(selected);
    return 0;
  }
  int runs = 0;
  for (const Check& check : selected) {
    runs += run_all(check.name, check.gemms, seeds) + run_all(check.name, check.repacks, seeds) +
            run_all(check.name, check.fixups, seeds) + run_all(check.name, check.rounds, seeds);
  }
  std::printf("%zu tests, %d launches: all right\n", selected.size(), runs);
  return 0;
}

}  // namespace padmarlin::emulator

int main(int count, char** arguments) {
  return padmarlin::emulator::main_program(count, arguments);
}
