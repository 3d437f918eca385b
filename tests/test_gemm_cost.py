# SPDX-License-Identifier: Apache-2.0
"""csrc/core/gemm_cost.h: what is predicted follows from counts, and more rows never take less time
than fewer by more than stated here. Predictions, not measurements."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.shapes import QWEN2_72B, RAGGED, slowest_part
from padmarlin.layout import Dequant
from tests.kernels import emulator

native = emulator()
MMA, WGMMA = native.Family.MMA, native.Family.WGMMA

# (padded_k, padded_n) of the slowest rank of every real layer.
SHAPES = sorted({
    (-(-part.k // 64) * 64, -(-part.n // 64) * 64)
    for layer in QWEN2_72B + RAGGED for part in (slowest_part(layer, tp) for tp in layer.tps)
})  # fmt: skip
LARGE = (8192, 59136)  # many tiles for each SM: no parts of tiles, no balance
KINDS = [
    (4, Dequant.TWO_FIELD, False), (4, Dequant.TWO_FIELD, True), (4, Dequant.WIDE, True),
    (8, Dequant.ONE_FIELD, False), (8, Dequant.WIDE, True),
]  # fmt: skip


def h200() -> object:
    known = native.named_devices["h200"]
    return native.Device(num_sms=known.num_sms, architecture=90, dram_gbps=4800, wgmma=True)


def problem(k: int, n: int, m: int = 1, kind=KINDS[0], **more) -> object:
    bits, dequant, asymmetric = kind
    return native.GemmProblem(
        m=m, padded_n=n, padded_k=k, bits=bits, dequant=int(dequant), asymmetric=asymmetric, **more
    )


def predicted(asked: object) -> dict[str, float]:
    gpu = h200()
    return native.predicted_us(asked, gpu, native.choose(asked, gpu))


def worst_step_down(us: np.ndarray) -> tuple[float, int, int]:
    """By how much a prediction exceeds that of more rows, and for which two M."""
    least_behind = np.minimum.accumulate(us[::-1])[::-1]
    ratio = us / least_behind
    m = int(ratio.argmax())
    return float(ratio[m]), m + 1, int(m + us[m:].argmin()) + 1


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    ("forced", "gathers", "tolerance"),
    [
        (MMA, False, 1.04),
        (WGMMA, False, 1.03),
        (None, False, 1.03),
        (WGMMA, True, 1.03),
        # A block of 8 bits and 64 rows has one group of warps, which waits for each element of A.
        (MMA, True, 1.09),
        # At M = 33 the wgmma kernel takes over for all shapes at once: for the largest, of wide
        # weights, it would have been faster with fewer rows, too.
        (None, True, 1.23),
    ],
)
def test_no_more_rows_take_less_time(kind, forced, gathers, tolerance):
    """M = 1 .. 4096, every real shape."""
    for k, n in SHAPES:
        asked = problem(k, n, kind=kind, forced=forced, gathers=gathers)
        worst, slow, fast = worst_step_down(native.predicted_sweep(asked, h200(), 4096))
        assert worst <= tolerance, f"{k} x {n}: M = {slow} takes {worst:.3f} of M = {fast}"


def test_the_test_above_sees_a_step():
    us = np.array([1.0, 2.0, 3.0, 2.5, 4.0])
    assert worst_step_down(us) == (1.2, 3, 4)


def of_large(m: int, kind, family, **more) -> dict[str, float]:
    return predicted(problem(*LARGE, m, kind, forced=family, **more))


def test_dequantization_takes_instructions():
    """Counted: at 48 rows asymmetric weights keep the instruction slots longer than the tensor
    cores, symmetric ones do not; wide weights do up to 64 rows."""
    ratios = {}
    for kind, rows in itertools.product(KINDS[:3], (48, 64, 96)):
        us = of_large(rows, kind, WGMMA)
        ratios[kind, rows] = us["issue"] / us["tensor"]
    two_field, asymmetric, wide = KINDS[:3]
    assert ratios[two_field, 48] < ratios[asymmetric, 48] < 1 < ratios[wide, 48]
    assert ratios[wide, 96] < ratios[wide, 64] < 1
    # 2 * 268 slots of 8 * 64 clocks, both at what is assumed to be sustained: 0.9 and 0.8.
    assert ratios[wide, 64] == pytest.approx(2 * 268 / 512 * 0.8 / 0.9, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "expected"), [(KINDS[0], 382), (KINDS[1], 438), (KINDS[2], 566)], ids=str
)
def test_instructions_of_the_mma_kernel(kind, expected):
    """Of 64 rows, per 64 x 64 tile and warp: its four schedulers issue 0.9 a clock of 1.7 GHz."""
    us = of_large(64, kind, MMA)
    tiles = LARGE[0] // 64 * LARGE[1] // 64 / 132  # of an SM, were they balanced
    assert us["issue"] == pytest.approx(tiles * expected / (4 * 0.9 * 1700), rel=0.02)


def test_the_pass_over_activations_is_a_launch_and_their_bytes():
    plain = of_large(64, KINDS[0], WGMMA)
    for more in ({"gathers": True}, {"copy_bytes": 8}, {"copy_bytes": 2}):
        aligned = of_large(64, KINDS[0], WGMMA, **more)
        bytes_us = 2 * 64 * LARGE[0] * 2 / (0.9 * 4800e3)
        assert aligned["align"] == pytest.approx(3 + bytes_us), more
        assert aligned["total"] == pytest.approx(plain["total"] + aligned["align"]), more
    assert plain["align"] == 0


def test_gathered_elements_are_waited_for_beyond_four_of_a_lane():
    """16 rows are four pairs a lane with 4 warps along N; 64 rows 16: 12 waits of 270 clocks."""
    few, many = ({"m": m, "gathers": True} for m in (16, 64))
    assert of_large(kind=KINDS[0], family=MMA, **few)["memory"] == pytest.approx(
        of_large(16, KINDS[0], MMA)["memory"]
    )
    us = of_large(kind=KINDS[0], family=MMA, **many)
    k_tiles = LARGE[0] // 64 * LARGE[1] // 256 / 132
    assert us["memory"] == pytest.approx(k_tiles * 12 * 270 / 2 / 1700, rel=0.03)


def geometric_mean(m: int, kind, **more) -> float:
    """mma's time over wgmma's on Qwen2-72B's ranks, each with 3 us of launch and first access."""
    ratios = []
    for layer in QWEN2_72B:
        for tp in layer.tps:
            part = slowest_part(layer, tp)
            k, n = -(-part.k // 64) * 64, -(-part.n // 64) * 64
            us = [
                predicted(problem(k, n, m, kind, forced=f, **more))["total"] for f in (MMA, WGMMA)
            ]
            ratios.append((us[0] + 3) / (us[1] + 3))
    return float(np.exp(np.mean(np.log(ratios))))


@pytest.mark.parametrize(
    ("kind", "more", "rows"),
    [
        (KINDS[0], {}, 32),
        (KINDS[2], {}, 32),
        (KINDS[3], {}, 64),
        (KINDS[4], {}, 64),
        (KINDS[0], {"copy_bytes": 8}, 64),
        (KINDS[0], {"copy_bytes": 4}, 64),
        (KINDS[3], {"copy_bytes": 4}, 64),
        (KINDS[0], {"gathers": True}, 32),
        (KINDS[0], {"copy_bytes": 2}, 32),
    ],
    ids=str,
)
def test_the_rule_between_families_is_what_the_model_predicts(kind, more, rows):
    """docs/kernel-schedule.md has the table."""
    assert native.mma_rows(problem(*LARGE, 1, kind, **more)) == rows
    assert geometric_mean(rows, kind, **more) < 1 < geometric_mean(rows + 1, kind, **more)
