# SPDX-License-Identifier: Apache-2.0
"""The planted bugs: what is changed in which file, which test catches it, and what that test says.

A bug is a change of text. `original` must occur exactly once in the file: a kernel that moves on
takes its bugs along. The tests are those of tests/standalone/checks.cpp.
"""

from __future__ import annotations

from tests.mutants.fixup import FIXUP
from tests.mutants.mutant import ASAN, CONFLICT, GUARD, NAN, RACE, REPORT, UBSAN, WRONG, Mutant

GEMM = "cuda/gemm_kernel.cuh"
ACTIVATIONS = "cuda/activations.cuh"
WEIGHTS = "cuda/weights.cuh"
STAGE = "cuda/stage.cuh"
DEQUANT = "cuda/dequant.cuh"
EPILOGUE = "cuda/epilogue.cuh"
REPACK = "cuda/repack_kernel.cuh"
LAYOUT = "core/layout.h"
PACKING = "core/packing.h"

WAIT = "ptx::cp_async_wait_group<kStages - 2>();"
BARRIER = "    ptx::bar_sync();\n"
LOAD = "    load(k_tile + kStages - 1);\n"
COMMIT = (
    "    }\n"
    "    // An empty group past the end keeps "
    '"all but the newest kStages - 2" meaning the same stage.\n'
    "    ptx::cp_async_commit_group();\n"
)
LAST = "k_tiles * (split + 1) / splits"
SPLIT_PARTIAL = "float* partial = partial_row(args, split, row) + n;\n          partial[0] = low;"

PIPELINE = [
    Mutant("no_wait", GEMM, WAIT, "", "pipeline", REPORT, "exits with"),
    Mutant(
        "wait_one_group_short", GEMM, WAIT, WAIT.replace("2", "1"),
        "pipeline", REPORT, "exits with",
    ),
    Mutant("wait_one_group_short_race", GEMM, WAIT, WAIT.replace("2", "1"), "pipeline", RACE),
    Mutant(
        "no_empty_groups_at_the_end", GEMM, COMMIT, "ptx::cp_async_commit_group(); }",
        "pipeline", REPORT, "exits with",
    ),
    Mutant("no_barrier_in_the_loop", GEMM, BARRIER, "", "pipeline", WRONG),
    Mutant("no_barrier_in_the_loop_race", GEMM, BARRIER, "", "pipeline", RACE),
    Mutant("load_before_the_barrier", GEMM, BARRIER + LOAD, LOAD + BARRIER, "pipeline", RACE),
    Mutant(
        "stage_overwritten_early", GEMM, "(k_tile - first) % kStages",
        "(k_tile - first) % (kStages - 1)", "pipeline", NAN,
    ),
    Mutant(
        "copies_left_in_flight", GEMM,
        "  if (!has_tile) return;", "  load(first);\n  if (!has_tile) return;", "pipeline",
        REPORT, "exits with",
    ),
    Mutant(
        "idle_warp_not_idle", GEMM, "n_tile < args.padded_n / kTile",
        "n_tile <= args.padded_n / kTile", "n_tail", REPORT, "outside the registered",
    ),
    Mutant(
        "block_of_the_wrong_rows", GEMM, "ptx::ctaid_x() % m_tiles * Layout::kRows",
        "ptx::ctaid_x() / m_tiles * Layout::kRows", "m_tail", NAN,
    ),
    Mutant(
        "ldmatrix_row", GEMM, "activation_offset(16 * i + lane % 16, 2 * slice + lane / 16)",
        "activation_offset(lane % 16, 2 * slice + lane / 16)", "m_tail", WRONG,
    ),
    Mutant(
        "planes_swapped", GEMM, "(slice * planes(kBits) + plane) * kPlaneWords",
        "(slice * planes(kBits) + planes(kBits) - 1 - plane) * kPlaneWords", "eight_bits", WRONG,
    ),
]  # fmt: skip

STAGES = [
    Mutant(
        "scales_over_the_weights", STAGE, "kWeights + kBlockWarps *", "kWeights +", "pipeline",
        NAN,
    ),
    Mutant(
        "rows_of_a_stage_forgotten", STAGE, "kRows * kTile * 2", "16 * kTile * 2",
        "pipeline_rows", WRONG,
    ),
    Mutant("no_swizzle_at_all", STAGE, "(chunk ^ (row & 7))", "chunk", "pipeline", CONFLICT),
]  # fmt: skip

SPLIT_K = [
    Mutant(
        "last_split_forgets_the_rest", GEMM, LAST, "k_tiles / splits * (split + 1)", "split_k",
        WRONG,
    ),
    Mutant("splits_overlap", GEMM, LAST, LAST + " + (split + 1 < splits)", "split_k", WRONG),
    Mutant(
        "partials_of_the_wrong_split", GEMM, SPLIT_PARTIAL,
        SPLIT_PARTIAL.replace("split,", "0,"), "split_k", NAN,
    ),
    Mutant(
        "partials_of_the_wrong_split_race", GEMM, SPLIT_PARTIAL,
        SPLIT_PARTIAL.replace("split,", "0,"), "split_k", RACE,
    ),
    Mutant(
        "partials_of_two_splits_overlap", EPILOGUE, "static_cast<size_t>(split) * args.m + row",
        "static_cast<size_t>(split) + row", "split_k", RACE,
    ),
    Mutant(
        "reduce_skips_a_split", GEMM, "int split = 0; split < splits",
        "int split = 1; split < splits", "split_k", WRONG,
    ),
    Mutant(
        "reduce_in_order_of_arrival", GEMM,
        "const float* partial = partial_row(args, split, row) + n;",
        "const float* partial = partial_row(args, (split + ptx::ctaid_x()) % splits, row) + n;",
        "reduction_order", WRONG,
    ),
    Mutant(
        "reduce_n_tail", GEMM, "  if (n >= args.n) return;\n  float low", "  float low",
        "split_k", ASAN,
    ),
    Mutant(
        "reduce_of_the_wrong_columns", GEMM,
        "ptx::ctaid_x() % column_blocks * kReduceColumns + 2 * ptx::tid_x()", "2 * ptx::tid_x()",
        "split_k_wide", RACE,
    ),
]  # fmt: skip

LEFT = "row < args.m && first >= 0 ? args.k - first : 0"
GATHERED = "row < args.m && static_cast<uint32_t>(column) < static_cast<uint32_t>(args.k)"
ALL = "reinterpret_cast<uint64_t>(args.a) | static_cast<uint64_t>(args.lda) * 2 |"
FRONT = "static_cast<uint64_t>(args.front_pad) * 2 | 16"

ACTIVATION_LOADER = [
    Mutant(
        "m_tail_of_the_copies", ACTIVATIONS, LEFT, "first >= 0 ? args.k - first : 0", "m_tail",
        REPORT, "outside the registered",
    ),
    Mutant(
        "k_tail_of_the_copies", ACTIVATIONS, "left < kElements ? left : kElements", "kElements",
        "k_tail", REPORT, "outside the registered",
    ),
    Mutant(
        "front_pad_of_the_copies", ACTIVATIONS, LEFT, "row < args.m ? args.k - first : 0",
        "front_pad", REPORT, "outside the registered",
    ),
    Mutant(
        "front_pad_forgotten", ACTIVATIONS, "const int column = padded_row - args.front_pad;",
        "const int column = padded_row;", "front_pad", WRONG,
    ),
    Mutant(
        "width_without_the_address", ACTIVATIONS, ALL, "static_cast<uint64_t>(args.lda) * 2 |",
        "activation_alignment", REPORT, "misaligned global address",
    ),
    Mutant(
        "width_without_the_pitch", ACTIVATIONS, ALL, "reinterpret_cast<uint64_t>(args.a) |",
        "activation_alignment", REPORT, "misaligned global address",
    ),
    Mutant(
        "width_without_the_front_pad", ACTIVATIONS, FRONT, "16", "activation_alignment", REPORT,
        "misaligned global address",
    ),
    Mutant(
        "narrow_pieces_from_the_wrong_column", ACTIVATIONS, "column + piece * kElements",
        "column + piece * 4", "activation_alignment", WRONG,
    ),
    Mutant(
        "narrow_pieces_to_the_wrong_place", ACTIVATIONS, "shared + piece * kBytes",
        "shared + (16 / kBytes - 1 - piece) * kBytes", "activation_alignment", WRONG,
    ),
    Mutant(
        "chunks_not_swizzled", ACTIVATIONS, "shared + activation_offset(row, chunk)",
        "shared + (row * 8 + chunk) * 16", "pipeline", WRONG,
    ),
    Mutant(
        "rows_of_the_first_tile", ACTIVATIONS,
        "copy_chunk<16>(args, destination, m0 + row, column)",
        "copy_chunk<16>(args, destination, row, column)", "m_tail", WRONG,
    ),
    Mutant(
        "gather_of_minus_one", ACTIVATIONS, GATHERED, "row < args.m && column < args.k",
        "act_order", NAN,
    ),
    Mutant(
        "gather_beyond_the_columns", ACTIVATIONS, GATHERED, "row < args.m && column >= 0",
        "k_tail", NAN,
    ),
    Mutant(
        "m_tail_of_the_gather", ACTIVATIONS, GATHERED, GATHERED.removeprefix("row < args.m && "),
        "act_order", ASAN, "heap-use|use-after-poison|buffer-overflow",
    ),
    Mutant(
        "gather_without_the_table", ACTIVATIONS, "args.columns[padded_row + i]",
        "padded_row + i", "act_order", WRONG,
    ),
    Mutant(
        "gathered_halves_swapped", ACTIVATIONS, "value << (i % 2 * 16)",
        "value << ((1 - i % 2) * 16)", "act_order", WRONG,
    ),
]  # fmt: skip

WEIGHT_LOADER = [
    Mutant(
        "scale_row_of_the_wrong_slice", WEIGHTS, "kSlicesPerTile + lane / 8]",
        "kSlicesPerTile + lane / 16]", "scale_rows", WRONG,
    ),
    Mutant(
        "scale_row_off_by_one", WEIGHTS, "kSlicesPerTile + lane / 8]",
        "kSlicesPerTile + (lane + 7) / 8]", "scale_rows", WRONG,
    ),
    Mutant(
        "slice_rows_not_clamped", WEIGHTS, "named < last ? named : last", "named",
        "tampered_tables", REPORT, "outside the registered",
    ),
    Mutant(
        "tile_of_the_wrong_column", WEIGHTS, "static_cast<size_t>(n_tile) * k_tiles + k_tile",
        "static_cast<size_t>(k_tile) + n_tile", "pipeline", WRONG,
    ),
    Mutant(
        "scales_of_the_first_tile", WEIGHTS, "row * padded_n + n_tile * kTile", "row * padded_n",
        "pipeline", WRONG,
    ),
    Mutant(
        "zeros_of_the_first_row", WEIGHTS, "args.zeros, row, args.padded_n",
        "args.zeros, 0, args.padded_n", "asymmetric_two_field", WRONG,
    ),
    Mutant(
        "a_plane_not_loaded", WEIGHTS, "plane < kSlicesPerTile * planes(kBits)",
        "plane < kSlicesPerTile", "eight_bits", WRONG,
    ),
]  # fmt: skip

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

LOW_BIAS = "low += ptx::to_float<kDtype>(bias[0]);"

STORES = [
    Mutant(
        "m_tail_of_the_output", GEMM, "      if (row >= args.m) continue;\n", "", "m_tail",
        GUARD,
    ),
    Mutant("n_tail_of_the_output", EPILOGUE, "  if (n >= args.n) return;\n", "", "n_tail", GUARD),
    Mutant("odd_n_of_the_output", EPILOGUE, "n + 1 < args.n;", "n < args.n;", "n_tail", GUARD),
    Mutant("bias_of_a_padded_column", EPILOGUE, "if (has_high) high +=", "high +=", "n_tail", ASAN),
    Mutant(
        "bias_after_the_rounding", EPILOGUE, LOW_BIAS,
        "low = ptx::to_float<kDtype>(static_cast<uint16_t>(ptx::pack2<kDtype>(low, 0.0f))) + "
        "ptx::to_float<kDtype>(bias[0]);",
        "bias", WRONG,
    ),
    Mutant(
        "bias_of_the_wrong_column", EPILOGUE, "(args.bias) + n;", "(args.bias) + n % 8;", "bias",
        WRONG,
    ),
    Mutant(
        "four_bytes_at_an_odd_address", EPILOGUE,
        "has_high && reinterpret_cast<uint64_t>(out) % 4 == 0", "has_high", "output_strides",
        UBSAN, "misaligned address",
    ),
    Mutant(
        "pitch_of_the_output_forgotten", EPILOGUE, "row * args.ldc + n", "row * args.n + n",
        "output_strides", GUARD,
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

MUTANTS = [
    *PIPELINE,
    *STAGES,
    *SPLIT_K,
    *FIXUP,
    *ACTIVATION_LOADER,
    *WEIGHT_LOADER,
    *DEQUANTIZATION,
    *STORES,
    *REPACKING,
]
