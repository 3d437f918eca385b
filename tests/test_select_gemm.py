# SPDX-License-Identifier: Apache-2.0
"""csrc/core/select_gemm.h: total, never an unsupported choice, and the rule it documents."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from padmarlin.layout import Dequant
from tests.kernels import emulator
from tests.sanitize import WGMMA_COLUMNS, WGMMA_ROWS, m_for_tiles_of

native = emulator()

# (k, n) of a rank: reference shapes that break elsewhere, by model and layer.
RAGGED = [
    (14784, 8192), (7392, 8192), (3696, 8192), (8192, 59136), (6848, 5120), (6848, 4096),
    (2368, 3584), (448, 896), (2752, 4096), (1728, 5120), (10944, 2048), (5472, 2048),
    (10944, 4096), (704, 4096), (192, 2048), (192, 4096), (192, 5120), (464, 2688), (232, 2688),
    (2880, 2880), (288, 4096), (5120, 96), (5120, 48), (4096, 32), (4544, 4544), (3420, 1280),
    (1280, 3420), (4304, 1152), (2152, 1152), (1, 1), (64, 64), (65, 1),
]  # fmt: skip
QWEN2_72B = [
    shape
    for tp in (1, 2, 4, 8)
    for shape in (
        (8192, 10240 // tp),
        (8192 // tp, 8192),
        (8192, 59136 // tp),
        (29568 // tp, 8192),
    )
]
ROWS = [1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 64, 65, 100, 128, 129, 1000, 4096, 100_000]
DEVICES = sorted(native.named_devices)


def up(size: int) -> int:
    return -(-size // 64) * 64


def problem(m: int, k: int, n: int, **more) -> object:
    return native.GemmProblem(m=m, padded_n=up(n), padded_k=up(k), **more)


def device(name: str, **more):
    known = native.named_devices[name]
    return native.Device(
        num_sms=known.num_sms, architecture=known.architecture, dram_gbps=known.dram_gbps, **more
    )


def check(m: int, k: int, n: int, name: str, **more):
    """All that a launch relies on."""
    what = (m, k, n, name, more)
    gpu = device(name, wgmma=True)
    choice = native.choose(problem(m, k, n, **more), gpu)
    p = choice.partition
    wgmma = choice.family == native.Family.WGMMA
    if wgmma:
        assert gpu.architecture == 90, what
        assert choice.tile_m in native.wgmma_block_rows, what
        assert (choice.tile_n, choice.threads) == (256, 384), what
        assert choice.stages >= 2, what
    else:
        assert choice.m_steps in (1, 2, 4, 8), what
        assert choice.column_warps * choice.k_groups <= 8, what
        assert choice.threads == 32 * choice.column_warps * choice.k_groups, what
        assert choice.tile_m == 8 * choice.m_steps, what
        assert choice.tile_n == 64 * choice.column_warps, what
        assert not choice.aligns_activations, what
    assert 0 < choice.shared_bytes <= gpu.shared_bytes, what
    assert choice.blocks_per_sm * (choice.shared_bytes + 1024) <= gpu.sm_shared_bytes, what
    assert choice.m_tiles * choice.tile_m >= m > (choice.m_tiles - 1) * choice.tile_m, what
    assert choice.n_tiles * choice.tile_n >= up(n) > (choice.n_tiles - 1) * choice.tile_n, what
    assert (p.tiles, p.k_tiles) == (choice.m_tiles * choice.n_tiles, up(k) // 64), what
    assert 1 <= p.blocks <= 2 * gpu.num_sms, what
    assert p.num_counters <= 4 * gpu.num_sms, what  # max_counters
    # The workspace is bounded whatever m is.
    assert choice.partials_bytes <= 16 * p.blocks * choice.tile_m * choice.tile_n * 4, what
    return choice


@pytest.mark.parametrize("name", DEVICES)
def test_every_shape_has_a_supported_choice(name):
    for (k, n), m in itertools.product([*QWEN2_72B, *RAGGED], ROWS):
        for bits, batch_invariant in itertools.product((4, 8), (False, True)):
            check(m, k, n, name, bits=bits, asymmetric=True, batch_invariant=batch_invariant)


@pytest.mark.parametrize("seed", range(4))
def test_random_problems_on_random_devices(seed):
    rng = np.random.default_rng(seed)
    for _ in range(500):
        m, k, n = (int(2 ** rng.uniform(0, top)) for top in (20, 17, 18))
        gpu = device(DEVICES[rng.integers(len(DEVICES))])
        more = {
            "bits": int(rng.choice([4, 8])),
            "asymmetric": bool(rng.integers(2)),
            "gathers": bool(rng.integers(2)),
            "copy_bytes": int(rng.choice([2, 4, 8, 16])),
            "batch_invariant": bool(rng.integers(2)),
        }
        name = next(x for x in DEVICES if native.named_devices[x].num_sms == gpu.num_sms)
        check(m, k, n, name, **more)


def test_the_smallest_tile_that_holds_all_rows():
    for m, tile_m in [(1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (32, 32), (33, 64), (4096, 64)]:
        choice = native.choose(problem(m, 8192, 8192), device("a100"))
        assert choice.tile_m == tile_m, m


def test_no_second_pass_over_the_weights_up_to_64_rows():
    for m, (k, n) in itertools.product([1, 8, 16, 32, 64], [*QWEN2_72B, *RAGGED]):
        assert native.choose(problem(m, k, n), device("a100")).m_tiles == 1, (m, k, n)


def test_decode_on_h200_follows_the_rule():
    """N = 8192 in 128 whole tiles at M = 1; stream-K of wider tiles as M grows."""
    gpu = device("h200")
    for k in (8192, 29568, 14784, 7392, 3696, 1024):
        choice = native.choose(problem(1, k, 8192), gpu)
        assert (choice.tile_n, choice.partition.streamed) == (64, 0), k
    for m, tile_n in [(8, 128), (16, 256), (32, 256)]:
        choice = native.choose(problem(m, 29568, 8192), gpu)
        assert choice.tile_n == tile_n, m
        assert choice.partition.streamed == choice.partition.tiles, m


def test_predicted_time_of_decode_stays_near_the_limit():
    """Large layers, M <= 16: at most 1.03 of bytes / bandwidth plus a fix-up."""
    gpu = device("h200")
    for (k, n), m in itertools.product(QWEN2_72B, (1, 8, 16)):
        asked = problem(m, k, n)
        us = native.predicted_us(asked, gpu, native.choose(asked, gpu))
        memory, fixup = us["memory"], us["fixup"]
        limit = up(n) * up(k) * (0.5 + 2 / 128) / (0.9 * gpu.dram_gbps * 1e3)
        assert memory >= 0.99 * limit
        assert max(us["tensor"], us["issue"]) <= memory, (k, n, m)
        if limit >= 8:
            assert memory + fixup <= 1.05 * limit + 2.2, (k, n, m, memory, fixup, limit)


@pytest.mark.parametrize("name", ["a100", "l40s", "4090", "3060", "b200", "5090"])
def test_wgmma_is_for_sm_90_alone(name):
    for m in ROWS:
        assert check(m, 8192, 8192, name).family == native.Family.MMA


@pytest.mark.parametrize("name", ["h200", "h100", "h20"])
def test_wgmma_takes_over_above_32_or_64_rows_if_it_is_built(name):
    for m, (last, more) in itertools.product(
        ROWS,
        [
            (32, {}), (64, {"bits": 8}), (64, {"copy_bytes": 8}), (64, {"copy_bytes": 4}),
            (32, {"copy_bytes": 2}), (32, {"gathers": True}), (32, {"gathers": True, "bits": 8}),
        ],
    ):  # fmt: skip
        expected = native.Family.WGMMA if m > last else native.Family.MMA
        assert check(m, 8192, 8192, name, **more).family == expected, (m, more)
    for m in ROWS:
        assert native.choose(problem(m, 8192, 8192), device(name)).family == native.Family.MMA
        invariant = problem(m, 8192, 8192, batch_invariant=True)
        assert native.choose(invariant, device(name, wgmma=True)).family == native.Family.MMA


def h200_row(**more):
    return native.Measurement(**{"wgmma_from": 33, **more})


def test_a_measurement_decides_where_there_is_one():
    gpu = device("h200", wgmma=True)
    for wgmma_from in (1, 8, 48, 1000, native.kNever):
        table = [h200_row(wgmma_from=wgmma_from)]
        edges = {wgmma_from - 1, wgmma_from} if 1 < wgmma_from < native.kNever else set()
        for m in sorted({*ROWS, *edges}):
            family = native.choose(problem(m, 8192, 8192), gpu, table).family
            expected = native.Family.WGMMA if m >= wgmma_from else native.Family.MMA
            assert family == expected, (wgmma_from, m)


@pytest.mark.parametrize(
    "row",
    [
        {"bits": 8},
        {"aligns": True},
        {"architecture": 100},
        {"num_sms": 131},
        {"dram_gbps": 3350},  # an H100
    ],
    ids=str,
)
def test_a_measurement_of_something_else_does_not_count(row):
    gpu = device("h200", wgmma=True)
    for m in (32, 33):
        asked = problem(m, 8192, 8192)
        table = [h200_row(wgmma_from=1000, **row)]
        assert native.choose(asked, gpu, table).family == native.choose(asked, gpu).family


def test_a_device_is_known_by_its_clock_too():
    """An H200 tells 4916 GB/s where its data sheet has 4800."""
    table = [h200_row(dram_gbps=4916, wgmma_from=1000)]
    gpu = device("h200", wgmma=True)
    assert native.choose(problem(500, 8192, 8192), gpu, table).family == native.Family.MMA
    assert native.choose(problem(500, 8192, 8192), gpu).family == native.Family.WGMMA


def test_activations_that_need_a_pass_have_rows_of_their_own():
    gpu = device("h200", wgmma=True)
    table = [h200_row(wgmma_from=40), h200_row(wgmma_from=400, aligns=True)]
    for more, wgmma_from in [({}, 40), ({"gathers": True}, 400), ({"copy_bytes": 8}, 400)]:
        for m in (39, 40, 399, 400):
            family = native.choose(problem(m, 8192, 8192, **more), gpu, table).family
            assert (family == native.Family.WGMMA) == (m >= wgmma_from), (more, m)


def test_no_measurement_makes_a_choice_that_cannot_run():
    table = [
        native.Measurement(
            architecture=gpu.architecture, num_sms=gpu.num_sms, dram_gbps=gpu.dram_gbps,
            wgmma_from=1,
        )
        for gpu in native.named_devices.values()
    ]  # fmt: skip
    for name in DEVICES:
        for invariant, wgmma in itertools.product((False, True), (False, True)):
            asked = problem(100, 8192, 8192, batch_invariant=invariant)
            family = native.choose(asked, device(name, wgmma=wgmma), table).family
            possible = wgmma and not invariant and native.named_devices[name].architecture == 90
            assert (family == native.Family.WGMMA) == possible, (name, invariant, wgmma)


def test_committed_measurements_name_their_results():
    results = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
    keys = [row[:5] for row in native.measured]
    assert len(set(keys)) == len(keys), "two rows of one GPU and kind of weight"
    for *_, wgmma_from, scratch_from, file in native.measured:
        assert wgmma_from >= 1 and scratch_from >= 1
        assert (results / file).is_file(), file


def test_a_forced_kernel_is_taken_whatever_is_measured_or_predicted():
    gpu = device("h200", wgmma=True)
    for m, table in itertools.product(ROWS, ([], [h200_row(wgmma_from=1)])):
        for family in (native.Family.MMA, native.Family.WGMMA, native.Family.SCRATCH):
            asked = problem(m, 8192, 8192, forced=family)
            assert native.is_allowed(asked, gpu)
            assert native.choose(asked, gpu, table).family == family


def test_a_forced_kernel_that_cannot_run_is_not_allowed():
    forced = native.Family.WGMMA
    h200 = device("h200", wgmma=True)
    assert not native.is_allowed(problem(64, 64, 64, forced=forced), device("h200"))
    assert not native.is_allowed(problem(64, 64, 64, forced=forced), device("a100", wgmma=True))
    invariant = problem(64, 64, 64, forced=forced, batch_invariant=True)
    assert not native.is_allowed(invariant, h200)
    # Total all the same.
    assert native.choose(invariant, h200).family == native.Family.MMA
    for name, own in itertools.product(DEVICES, ({}, {"forced": native.Family.MMA})):
        assert native.is_allowed(problem(64, 64, 64, **own), device(name))


def test_the_explanation_says_what_decided():
    gpu = device("h200", wgmma=True)

    def said(m, table=(), gpu=gpu, **more):
        text = native.explain(problem(m, 8192, 8192, **more), gpu, list(table))
        return [line.strip() for line in text.splitlines()]

    # Of an odd length one row is aligned, several are not, whichever number is asked for.
    def of_rows(m, label, **more):
        return next(x for x in said(m, **more) if x.startswith(label)).split()

    odd = {"copy_bytes": 2, "bits": 8}
    assert of_rows(1, "by M", **odd) == of_rows(2, "by M", **odd) != of_rows(1, "by M", bits=8)
    assert of_rows(1, "by M", **odd)[:4] == of_rows(1, "by M", bits=8)[:4]  # by M 1: time
    assert of_rows(1, "predicted", **odd) == of_rows(1, "predicted", bits=8)
    assert "wgmma      from M = 65 on (a prediction)" in said(1, copy_bytes=8)
    measured = [h200_row(wgmma_from=48)]
    predicted = "chosen by  a prediction: nobody has measured this GPU and kind of weight"
    assert {predicted, "wgmma      from M = 33 on (a prediction)"} <= set(said(32))
    assert {predicted, "wgmma      chosen"} <= set(said(33))
    row = "chosen by  a measurement, 2026-01-01 at abc: made_up"
    assert {row, "wgmma      from M = 48 on (a measurement)"} <= set(said(47, measured))
    assert {row, "wgmma      chosen"} <= set(said(48, measured))
    never = said(48, [h200_row(wgmma_from=native.kNever)])
    assert {row, "wgmma      never (a measurement)"} <= set(never)
    only = "chosen by  the only fused kernel that can serve this"
    assert only in said(48, measured, gpu=device("a100", wgmma=True))
    assert only in said(48, measured, batch_invariant=True)
    forced = said(48, measured, forced=native.Family.MMA)
    assert "chosen by  PADMARLIN_KERNEL=mma" in forced
    assert "wgmma      from M = 48 on (a measurement)" in forced
    refused = said(48, gpu=device("a100", wgmma=True), forced=native.Family.WGMMA)
    assert refused[0].startswith("PADMARLIN_KERNEL=wgmma: refused: not on sm_80")


def test_the_scratch_is_taken_where_a_measurement_says_so_and_from_there_on():
    for name, wgmma in [("h200", True), ("h200", False), ("a100", False), ("b200", False)]:
        known = native.named_devices[name]
        gpu = device(name, wgmma=wgmma)
        for scratch_from, wgmma_from in itertools.product(
            (1, 40, 1000, native.kNever), (1, 33, 4096, native.kNever)
        ):
            row = native.Measurement(
                architecture=known.architecture, num_sms=known.num_sms,
                dram_gbps=known.dram_gbps, wgmma_from=wgmma_from, scratch_from=scratch_from,
            )  # fmt: skip
            for m in sorted({*ROWS, 39, 40, 999}):
                family = native.choose(problem(m, 8192, 8192), gpu, [row]).family
                expected = native.Family.WGMMA if wgmma and m >= wgmma_from else native.Family.MMA
                if m >= scratch_from:
                    expected = native.Family.SCRATCH
                assert family == expected, (name, wgmma, scratch_from, wgmma_from, m)


def test_the_scratch_is_never_taken_without_a_measurement_or_against_a_ban():
    for name, m in itertools.product(DEVICES, ROWS):
        for more in ({}, {"gathers": True}, {"batch_invariant": True}):
            choice = native.choose(problem(m, 8192, 8192, **more), device(name, wgmma=True))
            assert choice.family != native.Family.SCRATCH
    gpu = device("h200", wgmma=True)
    table = [h200_row(scratch_from=1)]
    assert native.choose(problem(1, 64, 64), gpu, table).family == native.Family.SCRATCH
    for more in ({"forbids_scratch": True}, {"batch_invariant": True}):
        choice = native.choose(problem(1000, 8192, 8192, **more), gpu, table)
        assert choice.family != native.Family.SCRATCH, more
        forced = problem(1000, 8192, 8192, **more, forced=native.Family.SCRATCH)
        assert not native.is_allowed(forced, gpu), more
    why = native.why_not_forced(
        problem(1, 64, 64, forbids_scratch=True, forced=native.Family.SCRATCH), gpu
    )
    assert why == "forbidden by PADMARLIN_SCRATCH=0"
    # 64 columns of it have more than the scratch may have.
    long = problem(1000, 2**21 + 64, 64, forced=native.Family.SCRATCH)
    assert not native.is_allowed(long, gpu)
    assert "not for K = 2097216" in native.why_not_forced(long, gpu)
    assert native.choose(long, gpu, table).family != native.Family.SCRATCH
    assert native.is_allowed(problem(1, 2**21, 64, forced=native.Family.SCRATCH), gpu)


def test_the_scratch_is_explained():
    gpu = device("a100")

    def said(m, table=(), **more):
        text = native.explain(problem(m, 8192, 8192, **more), gpu, list(table))
        return [line.strip() for line in text.splitlines()]

    assert "scratch    only where a measurement says so, and there is none" in said(4096)
    known = native.named_devices["a100"]
    row = native.Measurement(
        architecture=80, num_sms=known.num_sms, dram_gbps=known.dram_gbps,
        wgmma_from=native.kNever, scratch_from=1024,
    )  # fmt: skip
    assert "scratch    from M = 1024 on (a measurement)" in said(1023, [row])
    at = said(1024, [row])
    assert (
        "scratch    chosen" in at and "chosen by  a measurement, 2026-01-01 at abc: made_up" in at
    )
    (chunks,) = (line for line in at if line.startswith("chunks"))
    (buffers,) = (line for line in at if line.startswith("buffers"))
    choice = native.choose(problem(1024, 8192, 8192), gpu, [row])
    assert f"{choice.tile_m} x {choice.tile_n} (M x N)" in chunks
    weights, products = native.scratch_bytes(problem(1024, 8192, 8192), choice)
    assert buffers.endswith(
        f"{weights / 1e6:.1f} MB of weights, {products / 1e6:.1f} MB of products"
    )
    assert not any(line.startswith(("tile", "schedule", "workspace")) for line in at)
    us = native.predicted_scratch_us(problem(1024, 8192, 8192), gpu, choice)
    assert any(line.startswith(f"predicted  {us:.1f} us: dequantizing") for line in at)
    assert "scratch    forbidden by PADMARLIN_SCRATCH=0" in said(4096, [row], forbids_scratch=True)
    assert any("not with batch_invariant" in x for x in said(4096, [row], batch_invariant=True))
    forced = said(16, forced=native.Family.SCRATCH)
    assert {"chosen by  PADMARLIN_KERNEL=scratch", "scratch    chosen"} <= set(forced)
    refused = said(16, forced=native.Family.SCRATCH, batch_invariant=True)
    assert refused[0].startswith("PADMARLIN_KERNEL=scratch: refused: not with batch_invariant")


@pytest.mark.parametrize("rows", native.wgmma_block_rows)
def test_problems_whose_tiles_have_so_many_rows(rows):
    """What tests/sanitize.py, and tests/test_kernels_wgmma.py on a device, rely on."""
    assert list(WGMMA_ROWS) == native.wgmma_block_rows
    gpu = device("h200", wgmma=True)
    for k, bits, asymmetric, dequant in itertools.product((130, 171), (4, 8), (0, 1), Dequant):
        asked = problem(
            m_for_tiles_of(rows), k, WGMMA_COLUMNS, bits=bits, asymmetric=bool(asymmetric),
            dequant=int(dequant), copy_bytes=4 if k == 130 else 2,
        )  # fmt: skip
        choice = native.choose(asked, gpu)
        what = (k, bits, asymmetric, dequant)
        assert (choice.family, choice.tile_m) == (native.Family.WGMMA, rows), what


def test_wgmma_aligns_what_its_copies_cannot_read():
    gpu = device("h200", wgmma=True)
    for gathers, copy_bytes in itertools.product([False, True], [2, 4, 8, 16]):
        asked = problem(128, 8192, 8192, gathers=gathers, copy_bytes=copy_bytes)
        choice = native.choose(asked, gpu)
        assert choice.aligns_activations == (gathers or copy_bytes < 16)


@pytest.mark.parametrize("name", DEVICES)
def test_batch_invariance_fixes_what_decides_bits(name):
    """The cuts of K and the groups of warps that share it are the same for every m, however A lies:
    one row of 767 elements is aligned, two are not."""
    short = [(767, 4096), (959, 2048), (1023, 2048)]
    for (k, n), bits in itertools.product([*short, *QWEN2_72B, *RAGGED], (4, 8)):
        seen = set()
        for m, copy_bytes in [(1, 2), (1, 4), (1, 8), *((m, 16) for m in ROWS[:-1])]:
            more = {"bits": bits, "asymmetric": True, "batch_invariant": True}
            choice = check(m, k, n, name, copy_bytes=copy_bytes, **more)
            p = choice.partition
            assert p.streamed == 0
            rows = native.split_k(1, p.k_tiles, 1, p.splits).segments()
            seen.add((choice.family, choice.k_groups, tuple(rows[:, 3])))
        assert len(seen) == 1, (k, n, bits, seen)


def test_a_remembered_choice_is_the_choice():
    """Also where two problems share a place, for each device, and as PADMARLIN_KERNEL changes."""
    cache = native.ChoiceCache()
    asked = [
        (problem(m, k, n, batch_invariant=invariant, forced=forced), device(name, wgmma=True))
        for (k, n), m in itertools.product(RAGGED, (1, 16, 64))
        for invariant in (False, True)
        for forced in (None, native.Family.MMA, native.Family.WGMMA, native.Family.SCRATCH)
        for name in ("h200", "l40s")
    ]
    for _ in range(2):
        for question in asked:
            assert repr(cache.choose(*question)) == repr(native.choose(*question))


def test_what_no_grid_can_hold_is_not_computable():
    largest = 2**31 - 256
    assert native.is_computable(problem(4096, 29568, 59136))
    assert native.is_computable(problem(largest, 64, 1))
    assert not native.is_computable(problem(largest, 64, 2**20))
