// SPDX-License-Identifier: Apache-2.0
// What AddressSanitizer and ThreadSanitizer must be told about a machine they know nothing of.
// Without them every function here is empty.
//
// ThreadSanitizer instruments the kernels only: the runtime is the hardware, and says itself, by
// the functions below, what it reads and writes for a thread and when threads synchronise.
// PADMARLIN_TSAN tells the runtime's sources, which are compiled without -fsanitize=thread.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
extern "C" {  // called by the sanitizers for each report, before or after they print it
void __asan_on_error();
void __ubsan_on_report();
}
#endif

#if defined(PADMARLIN_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {  // of the TSan runtime, declared in no header of it
void __tsan_read_range(void* begin, unsigned long bytes);
void __tsan_write_range(void* begin, unsigned long bytes);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace padmarlin::emulator {

// The running thread reads or writes these bytes through an instruction of the runtime.
inline void declare_read([[maybe_unused]] const void* begin, [[maybe_unused]] size_t bytes) {
#if defined(PADMARLIN_TSAN)
  if (bytes > 0) __tsan_read_range(const_cast<void*>(begin), bytes);
#endif
}
inline void declare_write([[maybe_unused]] void* begin, [[maybe_unused]] size_t bytes) {
#if defined(PADMARLIN_TSAN)
  if (bytes > 0) __tsan_write_range(begin, bytes);
#endif
}

// All that a thread did before release(at) happens before what another does after acquire(at).
inline void release([[maybe_unused]] void* at) {
#if defined(PADMARLIN_TSAN)
  __tsan_release(at);
#endif
}
inline void acquire([[maybe_unused]] void* at) {
#if defined(PADMARLIN_TSAN)
  __tsan_acquire(at);
#endif
}

// While one lives, what the running thread does is the runtime's own business: its containers are
// shared by all threads, and TSan sees them through malloc, free and memmove. Nothing is declared
// while one lives. Belongs to the fiber, and sleeps and wakes with it.
class Unobserved {
 public:
#if defined(PADMARLIN_TSAN)
  Unobserved() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unobserved() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Unobserved() {}
#endif
  Unobserved(const Unobserved&) = delete;
  Unobserved& operator=(const Unobserved&) = delete;
};

// Memory that lies inside an allocation but must not be touched, and memory that may be again.
// ASan keeps one byte of state per eight: the last up to seven bytes of [begin, begin + bytes) stay
// accessible where the region does not end on a multiple of eight.
inline void forbid([[maybe_unused]] const void* begin, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(begin, bytes);
#endif
}
inline void permit([[maybe_unused]] const void* begin, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(begin, bytes);
#endif
}

}  // namespace padmarlin::emulator
