# SPDX-License-Identifier: Apache-2.0
"""Planted bugs of the wgmma kernel: its ring, what runs in the background, its output; and of the
pass that aligns its A."""

from __future__ import annotations

from tests.mutants.mutant import ASAN, CONFLICT, GUARD, NAN, RACE, REPORT, UBSAN, WRONG, Mutant

PRODUCER = "cuda/wgmma/producer.cuh"
RING = "cuda/wgmma/ring.cuh"
CONSUMER = "cuda/wgmma/consumer.cuh"
EPILOGUE = "cuda/wgmma/epilogue.cuh"
KERNEL = "cuda/wgmma/kernel.cuh"
BLOCK = "core/wgmma_block.h"
ALIGN = "cuda/align_kernel.cuh"

DEADLOCK = ("plain", r"emulator report: wgmma_kernel: deadlock: no thread can go on")

EMPTY_WAIT = "ptx::mbarrier_wait_parity(shared.empty(position.slot), position.parity ^ 1);"
BRING = (
    "      bring_operands(args, map, shared, position.slot, tile.m * kRows, n_tile, k_tile, "
    "tiles,\n                     policy);\n"
)
FULL_WAIT = "    ptx::mbarrier_wait_parity(shared.full(slot), position.parity);\n"
PLACE_READ = (
    "    ptx::bar_sync(kTurnBarrier + lane.consumer, kWarpgroup);  // the place has been read\n"
)
PLACE_WRITTEN = "    }\n    ptx::bar_sync(kTurnBarrier + lane.consumer, kWarpgroup);\n"
WHOLE = "left >= 8 && address % 16 == 0"

RING_BUGS = [
    Mutant(
        "wgmma_no_empty_wait", PRODUCER, EMPTY_WAIT, "", "wgmma_ring", REPORT, "arrivals already",
    ),
    Mutant(
        "wgmma_empty_wait_a_round_late", PRODUCER, "position.parity ^ 1", "position.parity",
        "wgmma_ring", DEADLOCK, "wait at an mbarrier",
    ),
    # Its consumers go round the ring faster than the producer.
    Mutant(
        "wgmma_no_full_wait", CONSUMER, FULL_WAIT, "", "wgmma_ring", REPORT, "arrivals already",
    ),
    Mutant("wgmma_no_full_wait_race", CONSUMER, FULL_WAIT, "", "wgmma_ring", RACE),
    Mutant(
        "wgmma_announces_a_tile_too_few", PRODUCER, "+ tiles * tile_bytes(kBits));",
        "+ (tiles - 1) * tile_bytes(kBits));", "wgmma_ring", REPORT,
        "under way|more than expect_tx",
    ),
    Mutant(
        "wgmma_announces_absent_tiles", PRODUCER, "+ tiles * tile_bytes(kBits));",
        "+ kBlockTiles * tile_bytes(kBits));", "wgmma_n_tail", DEADLOCK, "lacks 0 arrivals and",
    ),
    Mutant(
        "wgmma_scales_not_announced", PRODUCER, "num_places * scale_bytes * (kAsymmetric ? 2 : 1)",
        "0", "wgmma_ring", REPORT, "under way|more than expect_tx",
    ),
    Mutant(
        "wgmma_operands_before_the_slot_is_free", PRODUCER, f"      {EMPTY_WAIT}\n{BRING}",
        f"{BRING}      {EMPTY_WAIT}\n", "wgmma_ring", REPORT, "arrivals already",
    ),
    Mutant(
        "wgmma_no_wait_for_the_kernel_before", KERNEL, "  wait_for_previous_kernel();\n", "",
        "wgmma_ring", REPORT, "griddepcontrol",
    ),
    Mutant(
        "wgmma_no_fence_of_barriers", RING, "    ptx::fence_mbarrier_init();\n", "",
        "wgmma_ring", REPORT, "no fence_mbarrier_init",
    ),
    Mutant(
        "wgmma_slot_free_after_half_the_warps", RING, "kConsumers * kWarpgroup / kWarp",
        "kWarpgroup / kWarp", "wgmma_ring", REPORT, "arrivals",
    ),
    Mutant(
        "wgmma_rounds_not_counted", RING, "parity ^= 1;", "parity ^= 0;", "wgmma_ring", REPORT,
        "arrivals already",
    ),
    Mutant(
        "wgmma_stages_off_the_swizzle", RING, "base + slot * kStage.bytes",
        "base + slot * (kStage.bytes - 512)", "wgmma_ring", REPORT, "a multiple of 1024",
    ),
    Mutant(
        "wgmma_slot_freed_while_it_is_read", CONSUMER, "if (slice == kSets - 2) {",
        "if (slice == 0) {", "wgmma_ring", ("plain", "wrong value|NaN at row"),
    ),
    Mutant(
        "wgmma_slot_freed_without_all_lanes", CONSUMER,
        "        ptx::syncwarp();\n        if (used_before", "        if (used_before",
        "wgmma_ring", RACE,
    ),
]  # fmt: skip

BACKGROUND = [
    Mutant(
        "wgmma_wait_one_too_weak", CONSUMER, "wgmma_wait_group<kSets - 1>",
        "wgmma_wait_group<kSets>", "wgmma_ring", WRONG,
    ),
    Mutant(
        "wgmma_no_final_wait", CONSUMER, "  ptx::wgmma_wait_group<0>();\n", "", "wgmma_ring",
        ("plain", "wrong value|NaN|no wgmma_wait_group has covered"),
    ),
    Mutant(
        "wgmma_no_fence_of_registers", CONSUMER, "      ptx::wgmma_fence();\n", "", "wgmma_ring",
        REPORT, "no wgmma_fence",
    ),
    Mutant(
        "wgmma_sums_of_the_tile_before", CONSUMER, "slice > 0 || turn > 0", "true", "wgmma_ring",
        ("plain", "wrong value|NaN"),
    ),
    Mutant(
        "wgmma_too_many_registers", KERNEL,
        "    ptx::give_registers<kProducerRegisters>();\n", "", "wgmma_ring", DEADLOCK,
        "wait at setmaxnreg",
    ),
]  # fmt: skip

OPERANDS = [
    Mutant(
        "wgmma_front_pad_sign", PRODUCER, "k_tile * kTile - args.front_pad",
        "k_tile * kTile + args.front_pad", "wgmma_front_pad", WRONG,
    ),
    Mutant(
        "wgmma_rows_of_the_first_tile", PRODUCER, "position.slot, tile.m * kRows",
        "position.slot, tile.m", "wgmma_ring", WRONG,
    ),
    Mutant(
        "wgmma_tiles_of_one_column", PRODUCER, "static_cast<size_t>(tile) * k_tiles *",
        "static_cast<size_t>(tile) *", "wgmma_ring", WRONG,
    ),
    Mutant(
        "wgmma_tiles_past_n", PRODUCER, "left < kBlockTiles ? left : kBlockTiles", "kBlockTiles",
        "wgmma_n_tail", REPORT, "outside the registered",
    ),
    Mutant(
        "wgmma_scale_rows_of_the_first_tile", PRODUCER, "slice_rows(args, k_tile);",
        "slice_rows(args, part.k_begin);", "wgmma_scale_rows", WRONG,
    ),
    Mutant(
        "wgmma_scale_row_of_the_first_slice", CONSUMER, "place[slice] * kScaleRowBytes",
        "place[0] * kScaleRowBytes", "wgmma_scale_rows", WRONG,
    ),
    Mutant(
        "wgmma_scale_row_not_clamped", PRODUCER, "named < last ? named : last", "named",
        "wgmma_tampered_tables", REPORT, "outside the registered",
    ),
    Mutant(
        "wgmma_scale_places_shared_too_much", PRODUCER,
        "rows.named[slice] != rows.named[slice - 1]", "rows.named[slice] < rows.named[slice - 1]",
        "wgmma_tampered_tables", WRONG,
    ),
    Mutant(
        "wgmma_zeros_are_scales", CONSUMER, "own + kStage.zeros - kStage.scales", "own",
        "wgmma_asymmetric", NAN,
    ),
    Mutant(
        "wgmma_planes_swapped", CONSUMER, "(slice * planes(kBits) + plane) * kPlaneWords",
        "(slice * planes(kBits) + planes(kBits) - 1 - plane) * kPlaneWords", "wgmma_eight_bits",
        WRONG,
    ),
    Mutant(
        "wgmma_no_alternation_of_halves", CONSUMER, "(warp ^ lane >> 3) & 1", "warp & 1",
        "wgmma_ring", CONFLICT,
    ),
    Mutant(
        "wgmma_activations_a_chunk_late", CONSUMER, "swizzled_descriptor(stage, 0)",
        "swizzled_descriptor(stage, 1)", "wgmma_ring", WRONG,
    ),
    Mutant(
        "wgmma_consumers_share_tiles", CONSUMER, "consumer * kTilesPerConsumer + warp / 2",
        "warp / 2", "wgmma_ring", WRONG,
    ),
]  # fmt: skip

OUTPUT = [
    Mutant("wgmma_columns_past_n", EPILOGUE, WHOLE, "address % 16 == 0", "wgmma_n_tail", GUARD),
    Mutant("wgmma_stores_misaligned", EPILOGUE, WHOLE, "left >= 8", "wgmma_n_tail", UBSAN),
    Mutant(
        "wgmma_rows_past_m", EPILOGUE, "    if (m0 + first + row >= args.m) continue;\n", "",
        "wgmma_m_tail", GUARD,
    ),
    Mutant(
        "wgmma_halves_not_joined", EPILOGUE, "uint4{even.x, odd.y, even.z, odd.w}", "even",
        "wgmma_ring", WRONG,
    ),
    Mutant(
        "wgmma_bias_of_another_column", EPILOGUE, "lane.column(i / 2, i % 2)",
        "lane.column(i % 2, i / 2)", "wgmma_bias", WRONG,
    ),
    Mutant("wgmma_turn_overwritten", EPILOGUE, PLACE_READ, "", "wgmma_ring", RACE),
    Mutant("wgmma_turn_read_early", EPILOGUE, PLACE_WRITTEN, "    }\n", "wgmma_ring", RACE),
    Mutant(
        "wgmma_turn_without_padding", BLOCK, "kTilesPerConsumer * kTile * 2 + 16",
        "kTilesPerConsumer * kTile * 2", "wgmma_ring", CONFLICT,
    ),
    Mutant(
        "wgmma_parts_are_whole", KERNEL, "if (!part.whole())", "if (false)", "wgmma_stream_k",
        WRONG,
    ),
    Mutant(
        "wgmma_partials_counted_early", KERNEL, "kConsumersBarrier, kConsumers * kWarpgroup",
        "kConsumersBarrier, kWarpgroup", "wgmma_stream_k", RACE,
    ),
    Mutant(
        "wgmma_output_of_the_first_rows", KERNEL, "tile.m * kRows,", "0,", "wgmma_ring",
        ("plain", "wrong value|NaN"),
    ),
]  # fmt: skip

ALIGNING = [
    Mutant(
        "align_column_not_checked", ALIGN,
        "static_cast<uint32_t>(columns[i]) < static_cast<uint32_t>(args.k)", "columns[i] >= 0",
        "wgmma_act_order", ASAN,
    ),
    Mutant(
        "align_rows_past_m", ALIGN, "    if (row >= args.m) return;\n", "", "wgmma_unaligned_a",
        ASAN,
    ),
    Mutant(
        "align_one_row_of_four", ALIGN, "first_row + j", "first_row", "wgmma_unaligned_a", NAN,
    ),
    Mutant(
        "align_columns_past_the_width", ALIGN,
        "  if (first >= args.width) return;  // a multiple of 8\n", "", "wgmma_unaligned_a", GUARD,
    ),
]  # fmt: skip

WGMMA = [*RING_BUGS, *BACKGROUND, *OPERANDS, *OUTPUT, *ALIGNING]
