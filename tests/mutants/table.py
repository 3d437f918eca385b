# SPDX-License-Identifier: Apache-2.0
"""The planted bugs: what is changed in which file, which test catches it, and what that test says.

A bug is a change of text. `original` must occur exactly once in the file: a kernel that moves on
takes its bugs along. The tests are those of tests/standalone/checks.cpp.
"""

from __future__ import annotations

from tests.mutants.dequantize import DEQUANTIZE
from tests.mutants.fixup import FIXUP
from tests.mutants.mma import MMA
from tests.mutants.mutant import ASAN, RACE, WRONG, Mutant
from tests.mutants.round import ROUND
from tests.mutants.wgmma import WGMMA

DEQUANT = "cuda/dequant.cuh"
REPACK = "cuda/repack_kernel.cuh"
LAYOUT = "core/layout.h"
PACKING = "core/packing.h"

DEQUANTIZATION = [
    Mutant("byte_swap_of_the_word", DEQUANT, "0x2301", "0x0123", "symmetric_two_field", WRONG),
    Mutant("eight_bits_of_the_low_column", DEQUANT, "0x4341", "0x4240", "eight_bits", WRONG),
    Mutant(
        "one_field_not_shifted", DEQUANT, "kDequant == Dequant::kOneField ? word << 4 : word",
        "word", "symmetric_one_field", WRONG,
    ),
    Mutant(
        "mask_of_the_other_field", DEQUANT, "twice(((1u << kBits) - 1) << kBit[1])",
        "twice(((1u << kBits) - 1) << kBit[0])", "symmetric_two_field", WRONG,
    ),
    Mutant(
        "zeros_of_the_other_field", DEQUANT, "(kMinus | kZero << kBit[1]) << 16",
        "(kMinus | kZero << kBit[0]) << 16", "symmetric_two_field", WRONG,
    ),
    Mutant("zero_added", DEQUANT, "kMinus = 0x8000u", "kMinus = 0", "symmetric_two_field", WRONG),
    Mutant(
        "scale_of_the_other_column", DEQUANT, "ptx::broadcast_high<kDtype>(columns.scale)",
        "ptx::broadcast_low<kDtype>(columns.scale)", "symmetric_two_field", WRONG,
    ),
    Mutant(
        "zero_of_the_other_column", DEQUANT, "ptx::broadcast_high<kDtype>(columns.zero)",
        "ptx::broadcast_low<kDtype>(columns.zero)", "asymmetric_two_field", WRONG,
    ),
    Mutant(
        "wide_exponent_of_the_other_field", DEQUANT, "kRest - kBit[1]", "kRest - kBit[0]",
        "asymmetric_wide", WRONG,
    ),
    Mutant(
        "wide_exponent_split", DEQUANT, "unit_exponent(kDtype) - kLargest;",
        "unit_exponent(kDtype) - kLargest + 1;", "bfloat16_wide", WRONG,
    ),
    Mutant(
        "wide_without_its_second_factor", DEQUANT,
        "        difference = ptx::mul2<kDtype>" "(difference, twice(kSecond[column_half]));\n",
        "", "bfloat16_wide", WRONG,
    ),
    Mutant(
        "field_read_at_the_wrong_bit", LAYOUT, "upper : upper - 4", "upper : upper",
        "bfloat16_two_field", WRONG,
    ),
    Mutant(
        "rounded_twice", DEQUANT, "return ptx::fma2<kDtype>(code, scale, zero);",
        "return ptx::fma2<kDtype>(ptx::mul2<kDtype>(code, scale), "
        "kDtype == Dtype::kHalf ? 0x3c003c00 : 0x3f803f80, zero);",
        "symmetric_two_field", WRONG,
    ),
]  # fmt: skip

ADDRESS = "kPacking, kBits, row, args.first_column + n"
INSIDE = "word_row < args.word_rows &&"
PAD_ROW = "args.slice_rows[k / kSlice]"
TILE = "static_cast<size_t>(ptx::ctaid_x()) * tile_words(kBits)"

REPACKING = [
    Mutant(
        "repack_row_beyond_the_words", REPACK, INSIDE, INSIDE.replace("<", "<="),
        "repack_four_bits", WRONG,
    ),
    Mutant(
        "repack_row_beyond_the_words_read", REPACK, INSIDE, INSIDE.replace("<", "<="),
        "repack_four_bits", ASAN,
    ),
    Mutant("repack_row_minus_one", REPACK, "row >= 0 && ", "", "repack_four_bits", WRONG),
    Mutant(
        "repack_code_of_the_padded_row", REPACK, ADDRESS,
        ADDRESS.replace("row", "k"), "repack_four_bits", WRONG,
    ),
    Mutant(
        "repack_pitch_forgotten", REPACK, "word_row * args.ldw",
        "word_row * args.word_columns", "repack_four_bits", WRONG,
    ),
    Mutant("repack_n_tail", REPACK, " && n < args.n", "", "repack_padding", WRONG),
    Mutant(
        "repack_padding_not_zero", REPACK, "return 1u << (kBits - 1);", "return 0;",
        "repack_padding", WRONG,
    ),
    Mutant(
        "repack_pad_code_of_the_wrong_row", REPACK, PAD_ROW, "args.slice_rows[k / kTile]",
        "repack_four_bits", WRONG,
    ),
    Mutant(
        "repack_pad_code_not_clamped", REPACK, "named < last ? named : last", "named",
        "repack_tampered_tables", ASAN,
    ),
    Mutant(
        "repack_tiles_transposed", REPACK, "ptx::ctaid_x() / k_tiles * kTile;",
        "ptx::ctaid_x() % (args.padded_n / kTile) * kTile;", "repack_four_bits", WRONG,
    ),
    Mutant(
        "repack_two_blocks_write_one_tile", REPACK, TILE, TILE.replace("()) *", "() / 2) *"),
        "repack_padding", RACE,
    ),
    Mutant(
        "repack_plane_of_the_other_half", REPACK, "k_half != plane", "k_half == plane",
        "repack_eight_bits", WRONG,
    ),
    Mutant(
        "repack_field_of_the_other_column", LAYOUT, "4 * (1 - column_half)", "4 * column_half",
        "repack_four_bits", WRONG,
    ),
    Mutant(
        "repack_field_does_not_wrap", LAYOUT, "((code << bit) | (code >> (16 - bit)))",
        "(code << bit)", "repack_four_bits", WRONG,
    ),
    Mutant(
        "repack_column_beyond_the_words", REPACK, "&& word_column < args.word_columns", "",
        "repack_compressed_tensors", WRONG,
    ),
    Mutant(
        "repack_first_column_forgotten", REPACK, ADDRESS, "kPacking, kBits, row, n", "repack_awq",
        WRONG,
    ),
    Mutant(
        "repack_awq_in_order", PACKING, "(j % 2 * (per_word / 2) + j / 2) * bits", "j * bits",
        "repack_awq", WRONG,
    ),
    Mutant(
        "repack_compressed_tensors_as_gptq", PACKING, "return {column, word, bit};",
        "return {word, column, bit};", "repack_compressed_tensors", WRONG,
    ),
]  # fmt: skip

MUTANTS = [*MMA, *WGMMA, *FIXUP, *DEQUANTIZATION, *DEQUANTIZE, *REPACKING, *ROUND]
