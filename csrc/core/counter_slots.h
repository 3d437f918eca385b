// SPDX-License-Identifier: Apache-2.0
// Which counters a launch may use: a slot of zeros for each stream, and for each stream of each
// graph capture, so that no two launches that may run at once share one. Bookkeeping only, without
// CUDA: where the memory comes from is the caller's business (csrc/torch/workspace.cpp).
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

namespace padmarlin {

// All functions may be called by several threads at a time.
class CounterSlots {
 public:
  // Ids that are unique over the life of the process; capture 0: launched at once, not captured.
  struct Key {
    uint64_t capture, stream;
    auto operator<=>(const Key&) const = default;
  };
  struct Slot {
    uint32_t* counters;
    bool is_new;  // this call has added it
  };

  // The slot of a key. If all are taken, `grow()` returns zeroed memory for kSlotsPerChunk more; it
  // runs without the lock and may throw. Two threads may both grow: then there is more to give.
  template <typename Grow>
  Slot find_or_add(const Key& key, int counters_per_slot, const Grow& grow) {
    for (;;) {
      {
        const std::lock_guard lock(mutex_);
        if (const auto found = used_.find(key); found != used_.end()) return {found->second, false};
        if (!free_.empty()) {
          uint32_t* const counters = free_.back();
          free_.pop_back();
          used_.emplace(key, counters);
          return {counters, true};
        }
      }
      uint32_t* const chunk = grow();
      const std::lock_guard lock(mutex_);
      for (int i = kSlotsPerChunk - 1; i >= 0; --i) {
        free_.push_back(chunk + static_cast<int64_t>(i) * counters_per_slot);
      }
    }
  }

  // The key's launches have all ended, which leaves zeros, and there will be no more.
  void remove(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto found = used_.find(key);
    if (found == used_.end()) return;
    free_.push_back(found->second);
    used_.erase(found);
  }

  static constexpr int kSlotsPerChunk = 64;

 private:
  std::mutex mutex_;
  std::map<Key, uint32_t*> used_;
  std::vector<uint32_t*> free_;
};

}  // namespace padmarlin
