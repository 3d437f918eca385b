// SPDX-License-Identifier: Apache-2.0
// The copy engine's tile loads: a box of a matrix, swizzled, zeros where the matrix ends.
#include <algorithm>
#include <cstring>

#include "machine.h"

namespace padmarlin::emulator {
namespace {

constexpr int kRowBytes = 128, kRowElements = kRowBytes / 2;
constexpr int kSwizzleBytes = 1024;  // eight rows: the pattern repeats

// What cuTensorMapEncodeTiled would refuse, and rows that overlap, of which its documentation says
// nothing.
void check_map(const TensorMap& map) {
  const auto refuse = [](const std::string& what) {
    fail("tma_load_2d: the tensor map's " + what);
  };
  if (reinterpret_cast<uintptr_t>(map.base) % 16) refuse("base is no multiple of 16");
  if (map.pitch_bytes % 16) refuse("pitch is no multiple of 16 bytes");
  if (map.columns < 1 || map.rows < 1) refuse("matrix is empty");
  if (map.pitch_bytes < map.columns * 2) refuse("rows overlap");
  if (map.box_rows < 1 || map.box_rows > 256) refuse("box has not 1 to 256 rows");
}

// The columns [first, last) of the box that lie in the matrix.
struct Part {
  int first, last;
};

Part columns_inside(const TensorMap& map, int x) {
  const auto clamp = [](int64_t column) {
    return static_cast<int>(std::clamp<int64_t>(column, 0, kRowElements));
  };
  return {clamp(-static_cast<int64_t>(x)), clamp(map.columns - x)};
}

void copy_box(uint8_t* shared, uint32_t address, const TensorMap& map, int x, int y) {
  const Part inside = columns_inside(map, x);
  for (int row = 0; row < map.box_rows; ++row) {
    uint16_t elements[kRowElements] = {};
    const int64_t source_row = static_cast<int64_t>(y) + row;
    if (source_row >= 0 && source_row < map.rows && inside.first < inside.last) {
      const uint16_t* const source = map.base + source_row * (map.pitch_bytes / 2) + x;
      std::memcpy(elements + inside.first, source + inside.first,
                  (inside.last - inside.first) * sizeof(uint16_t));
    }
    for (int chunk = 0; chunk < kRowBytes / 16; ++chunk) {
      const uint32_t plain = address + row * kRowBytes + chunk * 16;
      std::memcpy(shared + (swizzle_128(plain) - address), elements + chunk * 8, 16);
    }
  }
}

}  // namespace

void tma_load_2d(void* shared, const TensorMap& map, int x, int y, uint64_t* barrier) {
  check_map(map);
  const int bytes = map.box_rows * kRowBytes;
  const uint32_t address = check_shared("tma_load_2d", shared, kRowBytes);
  if (address % kSwizzleBytes) {
    fail("tma_load_2d: shared address " + std::to_string(address) +
         " is misaligned, expected a multiple of " + std::to_string(kSwizzleBytes));
  }
  check_shared("tma_load_2d", static_cast<uint8_t*>(shared) + bytes - kRowBytes, kRowBytes);
  const Part inside = columns_inside(map, x);
  for (int row = std::max(-y, 0); row < map.box_rows && y + row < map.rows; ++row) {
    if (inside.first >= inside.last) break;
    const uint16_t* const source = map.base + (y + row) * (map.pitch_bytes / 2) + x;
    const int present = (inside.last - inside.first) * 2;
    check_source("tma_load_2d", source + inside.first, present, 2);
    declare_read(source + inside.first, present);
  }
  issue_bulk_copy("tma_load_2d", barrier, shared, bytes,
                  [=] { copy_box(static_cast<uint8_t*>(shared), address, map, x, y); });
}

}  // namespace padmarlin::emulator
