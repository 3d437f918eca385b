# SPDX-License-Identifier: Apache-2.0
"""Planted bugs of the mma kernel: its pipeline, its loaders, the end of a segment."""

from __future__ import annotations

from tests.mutants.mutant import ASAN, CONFLICT, GUARD, NAN, RACE, REPORT, UBSAN, WRONG, Mutant

GEMM = "cuda/gemm_kernel.cuh"
FEEDER = "cuda/feeder.cuh"
ACTIVATIONS = "cuda/activations.cuh"
WEIGHTS = "cuda/weights.cuh"
STAGE = "cuda/stage.cuh"
BLOCK = "core/mma_block.h"
EPILOGUE = "cuda/epilogue.cuh"

WAIT = "ptx::cp_async_wait_group<kStages - 2>();"
BARRIER = "      ptx::bar_sync(group_barrier, group_threads);\n"
FREE = "      uint8_t* const free_stage = ring + free_slot * bytes;\n"
NEXT = "      free_slot = (free_slot + 1) & (kStages - 1);\n"
BEGIN = "      const int unfinished = feeder.begin(free_stage);\n"
COMMIT = (
    "    }\n    // Past the last tile an empty group: "
    '"all but the newest two" always means the same stage.\n'
    "    ptx::cp_async_commit_group();\n"
)
MATRIX_ROW = "lane / 16 * 8 + lane % 8;"

PIPELINE = [
    Mutant("no_wait", GEMM, WAIT, "", "pipeline", REPORT, "exits with"),
    Mutant(
        "wait_one_group_short", GEMM, WAIT, WAIT.replace("2", "1"),
        "pipeline", REPORT, "exits with",
    ),
    Mutant("wait_one_group_short_race", GEMM, WAIT, WAIT.replace("2", "1"), "pipeline", RACE),
    Mutant(
        "no_empty_groups_at_the_end", FEEDER, COMMIT, "ptx::cp_async_commit_group(); }\n",
        "pipeline", REPORT, "exits with",
    ),
    Mutant("no_barrier_in_the_loop", GEMM, BARRIER, "", "pipeline", WRONG),
    Mutant("no_barrier_in_the_loop_race", GEMM, BARRIER, "", "pipeline", RACE),
    Mutant(
        "groups_share_a_barrier", GEMM, "kept(1 + k_group, lane)", "kept(1, lane)", "pipeline",
        RACE,
    ),
    Mutant(
        "load_before_the_barrier", GEMM, BARRIER + FREE + NEXT + BEGIN,
        FREE + NEXT + BEGIN + BARRIER, "pipeline", RACE,
    ),
    Mutant(
        "load_into_the_stage_in_use", GEMM, FREE + NEXT, NEXT + FREE, "pipeline", NAN,
    ),
    Mutant(
        "ring_one_stage_short", GEMM, NEXT, NEXT.replace("& (kStages - 1)", "% (kStages - 1)"),
        "pipeline", NAN,
    ),
    Mutant(
        "first_product_early", GEMM, "lead = (kStages - 1)", "lead = (kStages - 2)", "pipeline",
        REPORT, "exits with",
    ),
    Mutant(
        "lead_in_every_segment", GEMM, "    lead = 0;\n", "", "stream_k", WRONG,
    ),
    Mutant(
        "matrices_of_the_first_step", GEMM, MATRIX_ROW, "lane % 8;", "m_tail", WRONG,
    ),
    Mutant(
        "steps_overlap", GEMM, "i * kStepRows * 128", "i * kStepRows * 64", "pipeline_rows", WRONG,
    ),
    Mutant(
        "slices_not_swizzled", GEMM, "flip(activations, slice * 32) + i",
        "activations + slice * 32 + i",
        "pipeline_rows", WRONG,
    ),
    Mutant(
        "second_slice_forgotten", GEMM, "b[0][0] = matrices[slice % 2 * 2]",
        "b[0][0] = matrices[0]", "pipeline", WRONG,
    ),
    Mutant(
        "planes_swapped", GEMM, "(slice * planes(kBits) + plane) * kPlaneWords",
        "(slice * planes(kBits) + planes(kBits) - 1 - plane) * kPlaneWords", "eight_bits", WRONG,
    ),
    Mutant(
        "sums_of_the_rings", GEMM, "ptx::dynamic_shared() + k_groups * kStages * bytes);",
        "ptx::dynamic_shared());", "stream_k", RACE,
    ),
]  # fmt: skip

STAGES = [
    Mutant(
        "scales_over_the_weights", STAGE, "kScales = tile_bytes(kBits)", "kScales = 512",
        "pipeline", WRONG,
    ),
    Mutant("zeros_over_the_scales", STAGE, "kScales + kScaleBytes", "kScales",
           "asymmetric_two_field", WRONG),
    Mutant(
        "weights_over_the_activations", STAGE, "kWarps = activation_bytes(kMSteps)", "kWarps = 512",
        "pipeline", WRONG,
    ),
    Mutant("no_swizzle_at_all", STAGE, "(chunk ^ (row & 7))", "chunk", "pipeline", CONFLICT),
    Mutant(
        "group_sums_of_no_size", BLOCK,
        "return (shape.k_groups - 1) * shape.column_warps * kStepSumsBytes;", "return 0;",
        "stream_k", RACE,
    ),
    Mutant(
        "rows_without_a_gap", BLOCK, "kRowPitch = kTile + 4", "kRowPitch = kTile", "pipeline",
        CONFLICT,
    ),
]  # fmt: skip

FEEDING = [
    Mutant(
        "every_group_the_first_tile", FEEDER, "segment.k_begin + k_group_;", "segment.k_begin;",
        "pipeline", REPORT, "exits with",
    ),
    Mutant(
        "idle_warp_not_idle", WEIGHTS,
        "return column_ < static_cast<uint32_t>(args.padded_n) / kEight;",
        "return true;", "n_tail", REPORT, "outside the registered",
    ),
    Mutant(
        "rows_of_the_first_tile", FEEDER, "tile.m * kMSteps * kStepRows", "0", "m_tail", WRONG,
    ),
    Mutant(
        "every_k_tile_by_every_group", GEMM, "kept(k_groups, lane)", "kept(1, lane)", "pipeline",
        WRONG,
    ),
    Mutant(
        "plain_to_the_end", FEEDER, "last = k_end_ - k_groups_;", "last = k_end_;", "stream_k", NAN,
    ),
    Mutant(
        "plain_beyond_n", FEEDER, "!weights_.exist(args_) ? 0", "false ? 0", "pipeline", REPORT,
        "outside the registered",
    ),
    Mutant(
        "plain_and_then_again", FEEDER, "int unfinished = 0;", "int unfinished = 1;", "pipeline",
        WRONG,
    ),
    Mutant(
        "parts_of_warps_overlap", GEMM, "column_warp * Layout::kWarpBytes", "0", "pipeline",
        WRONG,
    ),
    Mutant(
        "segments_without_tiles_end_the_work", FEEDER,
        "    if (k_tile_ >= k_end_) find_segment();\n", "", "groups_without_tiles", NAN,
    ),
]  # fmt: skip

ALL = "reinterpret_cast<uint64_t>(args.a) | static_cast<uint64_t>(args.lda) * 2 |"
FRONT = "static_cast<uint64_t>(args.front_pad) * 2 | 16"
COPIED_ROWS = "int row = row_; row < num_rows_; row += row_step_"
PRESENT = "const bool present = row_ + turn * row_step_ < num_rows_;"
REST = "for (; row < num_rows_; row += row_step_, source += step_) {\n      store_pair"
LOW, HIGH = "static_cast<uint32_t>(columns_[0]) < k", "static_cast<uint32_t>(columns_[1]) < k"

ACTIVATION_LOADER = [
    Mutant(
        "m_tail_of_the_copies", ACTIVATIONS, COPIED_ROWS,
        COPIED_ROWS.replace("num_rows_", "kMSteps * kStepRows"), "m_tail", REPORT,
        "outside the registered",
    ),
    Mutant(
        "m_tail_of_whole_pieces", ACTIVATIONS, PRESENT, "const bool present = true;", "pipeline",
        REPORT, "outside the registered",
    ),
    Mutant(
        "front_pad_of_whole_pieces", ACTIVATIONS, "k_tile * kTile >= args.front_pad;", "true;",
        "front_pad", REPORT, "outside the registered",
    ),
    Mutant(
        "rows_beyond_the_turns", ACTIVATIONS, "whole && num_rows_ <= kWholeTurns * row_step_",
        "whole", "pipeline_rows", NAN,
    ),
    Mutant(
        "second_half_of_the_first_piece", ACTIVATIONS, "source + kHalfRowBytes / 2);", "source);",
        "pipeline", WRONG,
    ),
    Mutant(
        "second_half_over_the_first", ACTIVATIONS, "flip(place, kHalfRowBytes)", "place",
        "pipeline",
        NAN,
    ),
    Mutant(
        "rows_of_the_last_tile", ACTIVATIONS, "rows < kMSteps * kStepRows ? rows", "true ? rows",
        "m_tail", WRONG,
    ),
    Mutant(
        "k_tail_of_the_copies", ACTIVATIONS, "left < kElements ? left : kElements", "kElements",
        "k_tail", REPORT,
        "outside the registered",
    ),
    Mutant(
        "front_pad_read", ACTIVATIONS, "column < 0 || left <= 0 ? 0", "left <= 0 ? 0", "front_pad",
        REPORT,
        "outside the registered",
    ),
    Mutant(
        "cut_pieces_are_absent", ACTIVATIONS, "left < kElements ? left :", "left < kElements ? 0 :",
        "k_tail", WRONG,
    ),
    Mutant(
        "front_pad_forgotten", ACTIVATIONS, "offset_ / 2 - args.front_pad;", "offset_ / 2;",
        "front_pad", WRONG,
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
        "pieces_of_the_first_chunk", ACTIVATIONS, "+ offset_ % 16;", ";", "activation_alignment",
        NAN,
    ),
    Mutant(
        "pieces_in_the_wrong_chunk", ACTIVATIONS, "activation_offset(row, offset_ / 16)",
        "activation_offset(row, offset_ / 32)", "pipeline", NAN,
    ),
    Mutant(
        "chunks_not_swizzled", ACTIVATIONS, "activation_offset(row, offset_ / 16)",
        "(row * 8 + offset_ / 16) * 16", "pipeline", WRONG,
    ),
    Mutant(
        "copies_of_the_first_row", ACTIVATIONS, "row_step_ * args.lda", "0", "m_tail", WRONG,
    ),
    Mutant(
        "next_tile_of_the_same_columns", ACTIVATIONS,
        "    source_ += static_cast<int64_t>(step) * kTile;\n  }\n\n  PADMARLIN_DEVICE void fetch",
        "  }\n\n  PADMARLIN_DEVICE void fetch", "pipeline", WRONG,
    ),
    Mutant(
        "next_cut_tile_of_the_same_columns", ACTIVATIONS,
        "      source_ += static_cast<int64_t>(step) * kTile;\n    }", "    }",
        "pipeline_rows",
        WRONG,
    ),
    Mutant(
        "gather_of_minus_one", ACTIVATIONS, LOW, "columns_[0] < args.k", "act_order", NAN,
    ),
    Mutant(
        "gather_beyond_the_columns", ACTIVATIONS, HIGH, "columns_[1] >= 0", "k_tail", NAN,
    ),
    Mutant(
        "m_tail_of_the_gather", ACTIVATIONS, "if (row >= num_rows_) break;\n", "",
        "act_order", ASAN, "heap-use|use-after-poison|buffer-overflow",
    ),
    Mutant(
        "rows_not_held_forgotten", ACTIVATIONS, REST, REST.replace("row < num_rows_", "false"),
        "act_order", NAN,
    ),
    Mutant(
        "rows_not_held_from_the_first", ACTIVATIONS, "first(args) + kHeldRows * step_",
        "first(args)",
        "act_order", WRONG,
    ),
    Mutant(
        "gather_without_the_table", ACTIVATIONS, "args.columns + k_tile * kTile + offset_ / 2;",
        "args.columns;", "act_order", WRONG,
    ),
    Mutant(
        "gather_of_one_column_twice", ACTIVATIONS, "columns_[1] = columns[1];",
        "columns_[1] = columns[0];", "act_order", WRONG,
    ),
    Mutant(
        "gathered_halves_swapped", ACTIVATIONS, "static_cast<uint32_t>(pair.high) << 16 | pair.low",
        "static_cast<uint32_t>(pair.low) << 16 | pair.high", "act_order", WRONG,
    ),
    Mutant(
        "gathered_into_the_stage_in_use", GEMM, "feeder.end(free_stage);",
        "feeder.end(ring + free_slot * bytes);",
        "act_order", NAN,
    ),
]  # fmt: skip

NAME = "args.slice_rows + k_tile * kSlicesPerTile + lane / 8;"

WEIGHT_LOADER = [
    Mutant(
        "scale_row_of_the_wrong_slice", WEIGHTS, NAME, NAME.replace("lane / 8", "lane / 16"),
        "scale_rows", WRONG,
    ),
    Mutant(
        "scale_row_off_by_one", WEIGHTS, NAME, NAME.replace("lane / 8", "(lane + 7) / 8"),
        "scale_rows", WRONG,
    ),
    Mutant(
        "first_scale_row_of_the_wrong_slice", WEIGHTS, "lane / 8 * 8);", "lane / 16 * 16);",
        "scale_rows", WRONG,
    ),
    Mutant(
        "first_scale_row_of_a_later_tile", WEIGHTS, "lane / 8 * 8);", "lane);", "scale_rows", WRONG,
    ),
    Mutant(
        "names_beyond_the_table", WEIGHTS, "ahead < k_end ? ahead : k_end - 1", "ahead",
        "scale_rows",
        ASAN,
    ),
    Mutant(
        "scale_row_of_the_tile_before", WEIGHTS,
        "static_cast<int64_t>(step) * kSlicesPerTile;\n    named_row_ = *names_;",
        "static_cast<int64_t>(step) * kSlicesPerTile;\n"
        "    named_row_ = names_[-kSlicesPerTile * step];",
        "pipeline", WRONG,
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
        "next_tile_one_step_on", WEIGHTS, "static_cast<int64_t>(step) * tile_bytes(kBits)",
        "tile_bytes(kBits)", "pipeline", WRONG,
    ),
    Mutant(
        "scales_of_the_first_tile", WEIGHTS, "n_tile * (kTile / kEight) + lane % 8;", "lane % 8;",
        "pipeline", WRONG,
    ),
    Mutant(
        "zeros_of_the_first_row", WEIGHTS, "(args.zeros) + source", "(args.zeros) + column_",
        "asymmetric_two_field", WRONG,
    ),
    Mutant(
        "a_plane_not_loaded", WEIGHTS, "plane < kSlicesPerTile * planes(kBits)",
        "plane < kSlicesPerTile", "eight_bits", WRONG,
    ),
]  # fmt: skip

LOW_BIAS = "low += ptx::to_float<kDtype>(bias[0]);"
ADDITION = "int group = 1; group < choice.shape.k_groups; ++group"
SHARED_SUMS = "      // The groups' sums of this step are there.\n      ptx::bar_sync();\n"
READ_SUMS = (
    "      // They have been read; those of the next step may come.\n      ptx::bar_sync();\n"
)
WRITTEN_ROWS = "      // The warp's rows of this step are there.\n      sync_group();\n"
READ_ROWS = "      // They have been read; those of the next step may come.\n      sync_group();\n"

ENDS = [
    Mutant(
        "groups_added_backwards", EPILOGUE, ADDITION,
        "int group = choice.shape.k_groups - 1; group > 0; --group", "reduction_order", WRONG,
    ),
    Mutant(
        "a_group_forgotten", EPILOGUE, ADDITION, ADDITION.replace("= 1", "= 2"), "pipeline", WRONG,
    ),
    Mutant(
        "groups_share_a_place", EPILOGUE, "(group - 1) * choice.shape.column_warps", "0",
        "pipeline", WRONG,
    ),
    Mutant("sums_read_early", EPILOGUE, SHARED_SUMS, "", "pipeline", RACE),
    Mutant("sums_overwritten_early", EPILOGUE, READ_SUMS, "", "pipeline_rows", RACE),
    Mutant("rows_read_early", EPILOGUE, WRITTEN_ROWS, "", "pipeline", RACE),
    Mutant("rows_overwritten_early", EPILOGUE, READ_ROWS, "", "pipeline_rows", RACE),
    Mutant(
        "every_group_stores", EPILOGUE, "if (k_group == 0) store_rows", "store_rows", "pipeline",
        RACE,
    ),
    Mutant(
        "partial_steps_forgotten", EPILOGUE, "num_steps() * 4", "4", "stream_k", WRONG,
    ),
    Mutant(
        "idle_groups_hold_a_tile", EPILOGUE, "choice.shape.column_warps * kWarp;\n      const auto",
        "block_threads(choice.shape);\n      const auto", "stream_k", ASAN,
    ),
    Mutant(
        "part_of_a_tile_stored", EPILOGUE, "if (!segment.whole()) {", "if (false) {", "split_k",
        WRONG,
    ),
    Mutant("rows_swapped", EPILOGUE, "(2 * t + r % 2)", "(2 * t + 1 - r % 2)", "m_tail", NAN),
    Mutant(
        "columns_of_the_other_half", EPILOGUE, "16 * j + r / 2 * 8 + g", "16 * j + r % 2 * 8 + g",
        "pipeline", WRONG,
    ),
    Mutant(
        "output_of_the_first_rows", EPILOGUE, "return tile.m * kMSteps * kStepRows;", "return 0;",
        "m_tail", WRONG,
    ),
    Mutant(
        "output_of_the_first_columns", EPILOGUE,
        "(tile.n * choice.shape.column_warps + column_warp)", "column_warp", "pipeline", WRONG,
    ),
    Mutant(
        "m_tail_of_the_output", EPILOGUE, "r < kStepRows && row + r < args.m", "r < kStepRows",
        "m_tail", GUARD,
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

MMA = [*PIPELINE, *STAGES, *FEEDING, *ACTIVATION_LOADER, *WEIGHT_LOADER, *ENDS]
