# SPDX-License-Identifier: Apache-2.0
"""Planted bugs of the rounding kernel."""

from __future__ import annotations

from tests.mutants.mutant import ASAN, GUARD, RACE, UBSAN, WRONG, Mutant

KERNEL = "cuda/round_kernel.cuh"
LOADED = "if (first_row + i >= args.m) continue;\n    products[i]"
STORED = "if (first_row + i >= args.m) continue;\n    const uint32_t pair"
ADDRESS = "args.out) + (first_row + i) * args.ldo + n"

ROUND = [
    Mutant("round_row_beyond_read", KERNEL, LOADED, "products[i]", "round_edges", ASAN),
    Mutant(
        "round_row_beyond_written", KERNEL, STORED, "const uint32_t pair", "round_edges", GUARD,
    ),
    Mutant("round_last_row_lost", KERNEL, STORED, STORED.replace("i >=", "i + 1 >="), "round_edges",
           WRONG),
    Mutant("round_column_beyond", KERNEL, "if (n >= args.n) return;\n", "", "round_edges", GUARD),
    Mutant(
        "round_odd_column_written", KERNEL, "if (has_high) out[1]", "out[1]", "round_edges", GUARD,
    ),
    Mutant(
        "round_odd_column_in_a_pair", KERNEL, "if (has_high && reinterpret", "if (reinterpret",
        "round_edges", GUARD,
    ),
    Mutant(
        "round_pair_at_any_address", KERNEL, " && reinterpret_cast<uint64_t>(out) % 4 == 0", "",
        "round_addresses", UBSAN,
    ),
    Mutant(
        "round_bias_beyond_read", KERNEL, "if (has_high) bias.y", "bias.y", "round_edges", ASAN,
    ),
    Mutant(
        "round_bias_of_the_other_column", KERNEL, "bias.y = ptx::to_float<kDtype>(of_columns[1])",
        "bias.y = ptx::to_float<kDtype>(of_columns[0])", "round_edges", WRONG,
    ),
    Mutant(
        "round_bias_after_rounding", KERNEL, "products[i].x + bias.x",
        "ptx::to_float<kDtype>(static_cast<uint16_t>(ptx::pack2<kDtype>(products[i].x, 0))) + "
        "bias.x", "round_edges", WRONG,
    ),
    Mutant("round_columns_swapped", KERNEL, "products[i].x + bias.x, products[i].y + bias.y",
           "products[i].y + bias.y, products[i].x + bias.x", "round_bfloat16", WRONG),
    Mutant(
        "round_pitch_of_the_output", KERNEL, "* args.ldp + n", "* args.ldo + n", "round_edges",
        WRONG,
    ),
    Mutant(
        "round_pitch_forgotten", KERNEL, ADDRESS, ADDRESS.replace("ldo", "n"), "round_edges", GUARD,
    ),
    Mutant(
        "round_two_warps_write_one_row", KERNEL, "+ warp * kRoundRows;",
        "+ warp * (kRoundRows - 1);", "round_edges", RACE,
    ),
    Mutant(
        "round_blocks_transposed", KERNEL, "ptx::ctaid_x() / column_blocks * kRoundBlockRows",
        "ptx::ctaid_x() % column_blocks * kRoundBlockRows", "round_edges", WRONG,
    ),
]  # fmt: skip
