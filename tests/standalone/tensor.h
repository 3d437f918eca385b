// SPDX-License-Identifier: Apache-2.0
// Tensors between guard zones. Whatever is not an element (what lies before, behind, and between
// the rows of a strided tensor) holds 0xff bytes: NaN, or -1 as an index. AddressSanitizer forbids
// it besides; without it, `damage` finds what was written there.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "runtime.h"
#include "sanitizers.h"

namespace padmarlin::emulator {

template <typename T>
class Tensor {
 public:
  // None: data() is null.
  Tensor() = default;

  // The first element lies `offset` elements after a multiple of 64 bytes. Elements are 0xff too.
  Tensor(int rows, int columns, int gap = 0, int offset = 0)
      : rows_(rows), columns_(columns), pitch_(columns + gap) {
    const size_t elements = offset + static_cast<size_t>(rows) * pitch_;
    bytes_ = 2 * kGuardBytes + elements * sizeof(T);
    void* storage = nullptr;
    if (posix_memalign(&storage, kAlignment, bytes_) != 0) throw std::bad_alloc();
    storage_.reset(static_cast<uint8_t*>(storage));
    std::memset(storage, kGuard, bytes_);
    data_ = reinterpret_cast<T*>(storage_.get() + kGuardBytes) + offset;
    for_each_gap([](const uint8_t* begin, size_t bytes) { forbid(begin, bytes); });
  }

  T* data() const { return data_; }
  T& at(int row, int column) const { return data_[row * pitch_ + column]; }
  int rows() const { return rows_; }
  int columns() const { return columns_; }
  int64_t pitch() const { return pitch_; }

  // What may be read: every row, not the gaps.
  void append_regions(std::vector<Region>& regions) const {
    for (int row = 0; row < rows_; ++row) {
      regions.push_back({reinterpret_cast<uintptr_t>(&at(row, 0)), columns_ * sizeof(T)});
    }
  }

  // Where something was written that is no element; empty if nowhere. Ends the protection.
  std::string damage() const {
    std::string found;
    for_each_gap([&](const uint8_t* begin, size_t bytes) {
      permit(begin, bytes);
      for (size_t i = 0; i < bytes && found.empty(); ++i) {
        if (begin[i] == kGuard) continue;
        const int64_t at = begin + i - reinterpret_cast<const uint8_t*>(data_);
        found = "guard zone overwritten at byte " + std::to_string(at) + " from the first element";
      }
    });
    return found;
  }

 private:
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kGuardBytes = 16 * 1024;  // some rows of the output, for stray stores
  static constexpr uint8_t kGuard = 0xff;

  struct FreeDeleter {
    void operator()(void* memory) const { free(memory); }
  };

  template <typename Visitor>
  void for_each_gap(const Visitor& visit) const {
    if (storage_ == nullptr) return;
    const uint8_t* begin = storage_.get();
    for (int row = 0; row < rows_; ++row) {
      const uint8_t* const first = reinterpret_cast<const uint8_t*>(&at(row, 0));
      if (first != begin) visit(begin, first - begin);
      begin = first + columns_ * sizeof(T);
    }
    visit(begin, storage_.get() + bytes_ - begin);
  }

  int rows_ = 0, columns_ = 0;
  int64_t pitch_ = 0;
  size_t bytes_ = 0;
  std::unique_ptr<uint8_t[], FreeDeleter> storage_;
  T* data_ = nullptr;
};

}  // namespace padmarlin::emulator
