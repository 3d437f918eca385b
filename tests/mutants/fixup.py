# SPDX-License-Identifier: Apache-2.0
"""Planted bugs of the addition of partial tiles (what orders it, where partial tiles lie), and of
kernels that overlap."""

from __future__ import annotations

from tests.mutants.mutant import RACE, REPORT, WRONG, Mutant

FIXUP_HEADER = "cuda/fixup.cuh"
OVERLAP = "cuda/overlap.cuh"
STREAM_K = "core/stream_k.h"
COUNTER = ("plain", r"counter \d+ is left at")

ORDER = "ptx::Order::kAcquireRelease"
ARRIVAL = (
    "    *last_to_come = ptx::atom_inc<ptx::Order::kAcquireRelease>(counter, others) == others;\n"
)
AFTER_THE_STORES = "  sync();\n  if (thread == 0) {"
AFTER_THE_ARRIVAL = "  sync();\n  if (*last_to_come == 0) return false;"
SLOT = "s.first_slot + 2 * split + (split == 0 ? 1 : 0)"
LOAD = "ptx::ld_global_cg_v4(address(split, first + i))"

FIXUP = [
    Mutant(
        "arrival_without_release", FIXUP_HEADER, ORDER, "ptx::Order::kAcquire",
        "fixup_stream_k", RACE,
    ),
    Mutant(
        "arrival_without_acquire", FIXUP_HEADER, ORDER, "ptx::Order::kRelease",
        "fixup_stream_k", RACE,
    ),
    Mutant(
        "arrival_relaxed", FIXUP_HEADER, ORDER, "ptx::Order::kRelaxed", "fixup_split_k", RACE,
    ),
    Mutant(
        "arrival_not_atomic", FIXUP_HEADER, ARRIVAL,
        "    const uint32_t old = *counter;\n"
        "    *counter = old >= others ? 0 : old + 1;\n"
        "    *last_to_come = old == others;\n",
        "fixup_stream_k", RACE,
    ),
    Mutant(
        "arrival_before_the_stores", FIXUP_HEADER, AFTER_THE_STORES, "  if (thread == 0) {",
        "fixup_stream_k", RACE,
    ),
    Mutant(
        "sum_before_the_arrival", FIXUP_HEADER, AFTER_THE_ARRIVAL,
        "  if (*last_to_come == 0) return false;", "fixup_stream_k", RACE,
    ),
    Mutant(
        "counter_wraps_one_late", FIXUP_HEADER, "(counter, others) == others",
        "(counter, others + 1) == others", "fixup_stream_k", COUNTER,
    ),
    Mutant(
        "counter_of_the_first_tile", FIXUP_HEADER, "workspace.counters + segment.counter",
        "workspace.counters", "fixup_stream_k", WRONG,
    ),
    Mutant(
        "first_to_come_adds", FIXUP_HEADER, "(counter, others) == others",
        "(counter, others) == 0", "fixup_stream_k", WRONG,
    ),
    Mutant(
        "own_part_first", FIXUP_HEADER, LOAD,
        "ptx::ld_global_cg_v4(address((segment.split + split) % segment.splits, first + i))",
        "fixup_split_k", WRONG,
    ),
    Mutant(
        "every_batch_is_the_first", FIXUP_HEADER, LOAD, "ptx::ld_global_cg_v4(address(split, i))",
        "fixup_split_k", WRONG,
    ),
    Mutant(
        "last_part_forgotten", FIXUP_HEADER, "split < segment.splits; ++split",
        "split < segment.splits - 1; ++split", "fixup_split_k", WRONG,
    ),
    Mutant(
        "own_part_added_twice", FIXUP_HEADER,
        "  for (int i = 0; i < 4 * kVectors; ++i) own[i] = 0.0f;\n#pragma unroll 1\n", "",
        "fixup_split_k", WRONG,
    ),
    Mutant(
        "stored_in_the_slot_of_the_first", FIXUP_HEADER, "address(segment.split, i)",
        "address(0, i)", "fixup_split_k", WRONG,
    ),
    Mutant(
        "vectors_of_two_threads_overlap", FIXUP_HEADER, "(slot * kVectors + vector) * threads",
        "(slot * kVectors + vector)", "fixup_split_k", RACE,
    ),
    Mutant(
        "idle_threads_store", FIXUP_HEADER, "  if (holds) {\n", "  {\n", "fixup_split_k", RACE,
    ),
    Mutant(
        "two_tiles_of_a_block_share_a_slot", STREAM_K, SLOT, "s.first_slot + 2 * split",
        "fixup_stream_k", RACE,
    ),
    Mutant(
        "split_numbered_from_the_wrong_block", STREAM_K, ".split = block - first,",
        ".split = last - block,", "fixup_stream_k", WRONG,
    ),
    Mutant(
        "a_split_too_few", STREAM_K, ".splits = last - first + 1,", ".splits = last - first,",
        "fixup_stream_k", WRONG,
    ),
    Mutant(
        "no_wait_for_the_kernel_before", OVERLAP, "  ptx::griddepcontrol_wait();\n", "", "pipeline",
        REPORT, "before griddepcontrol_wait",
    ),
    Mutant(
        "prefetch_beyond_n", "cuda/gemm_kernel.cuh", "column_warp; n_tile < n_tiles)",
        "column_warp; n_tile >= 0)", "n_tail", REPORT, "prefetch_l2: reads",
    ),
    Mutant(
        "prefetch_beyond_k", OVERLAP, "    if (ahead >= k_end) return;\n", "", "k_tail", REPORT,
        "prefetch_l2: reads",
    ),
]  # fmt: skip
