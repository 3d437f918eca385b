# SPDX-License-Identifier: Apache-2.0
"""Planted bugs of the dequantize kernel."""

from __future__ import annotations

from tests.mutants.mutant import ASAN, CONFLICT, GUARD, NAN, RACE, UBSAN, WRONG, Mutant

KERNEL = "cuda/dequantize_kernel.cuh"
SYNC = "  ptx::bar_sync();\n"
INSIDE = "static_cast<uint32_t>(row) >= static_cast<uint32_t>(args.k)"

DEQUANTIZE = [
    Mutant("dequantize_no_barrier", KERNEL, SYNC, "", "dequantize_edges", NAN),
    Mutant("dequantize_no_barrier_race", KERNEL, SYNC, "", "dequantize_edges", RACE),
    Mutant(
        "dequantize_n_tail", KERNEL, "if (n + i < args.n) out[i]", "out[i]", "dequantize_edges",
        GUARD,
    ),
    Mutant(
        "dequantize_n_tail_of_a_vector", KERNEL, "n + 8 <= args.n && ", "", "dequantize_edges",
        GUARD,
    ),
    Mutant(
        "dequantize_vector_at_any_address", KERNEL,
        " && reinterpret_cast<uint64_t>(out) % 16 == 0", "", "dequantize_addresses", UBSAN,
    ),
    Mutant(
        "dequantize_padding_stored", KERNEL, INSIDE, "row >= args.k", "dequantize_front_pad", GUARD,
    ),
    Mutant(
        "dequantize_k_tail", KERNEL, INSIDE, "row < 0", "dequantize_edges", GUARD,
    ),
    Mutant(
        "dequantize_front_pad_forgotten", KERNEL, "padded_row - args.front_pad", "padded_row",
        "dequantize_front_pad", WRONG,
    ),
    Mutant(
        "dequantize_scale_row_not_clamped", KERNEL, "named < last ? named : last", "named",
        "dequantize_tampered_tables", ASAN,
    ),
    Mutant(
        "dequantize_scales_of_the_first_slice", KERNEL, "k_tile * kSlicesPerTile + slice]",
        "k_tile * kSlicesPerTile]", "dequantize_edges", WRONG,
    ),
    Mutant(
        "dequantize_rows_swapped", KERNEL, "? 0x5410 : 0x7632", "? 0x7632 : 0x5410",
        "dequantize_edges", WRONG,
    ),
    Mutant(
        "dequantize_columns_without_swizzle", KERNEL, " ^ column % 8 * 4", "", "dequantize_edges",
        CONFLICT,
    ),
    Mutant(
        "dequantize_groups_without_swizzle", KERNEL, " ^ column / 8 % 4 * 8", "",
        "dequantize_edges", CONFLICT,
    ),
]  # fmt: skip
