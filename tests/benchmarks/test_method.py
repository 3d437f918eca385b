# SPDX-License-Identifier: Apache-2.0
"""The method on a scripted device: what is wrong has no time, what is timed is interleaved."""

from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks.method import (
    Timed,
    capture,
    copies_of,
    error_of,
    interleave,
    num_copies,
    percentile,
    product,
)
from tests.benchmarks.double import ScriptedDevice


def ticking(step):
    ticks = itertools.count(0, step)
    return lambda: next(ticks)


class Replay:
    def __init__(self, number, times, log):
        self.number, self.times, self.log = number, itertools.cycle(times), log
        self.outputs = []

    def time(self):
        self.log.append(self.number)
        return next(self.times)


def test_rounds_are_interleaved_and_nobody_always_follows_the_same():
    log = []
    contestants = [Timed(Replay(i, [100.0 * (i + 1)], log), 10) for i in range(3)]
    timings = interleave(contestants, 0, least=3, most=9, clock=lambda: 0.0)
    assert [timing.us for timing in timings] == [10.0, 20.0, 30.0]
    measured = log[9:]  # after three warm-up replays each
    assert measured == [0, 1, 2, 1, 2, 0, 2, 0, 1]


def test_median_and_spread():
    times = [10.0, 1000.0, 12.0, 11.0, 13.0]  # one interruption
    warm_up = [9999.0] * 3
    (timing,) = interleave(
        [Timed(Replay(0, warm_up + times, []), 1)], 0, least=5, clock=lambda: 0.0
    )
    assert timing.us == 12.0
    assert timing.spread == pytest.approx(605.2 - 10.4)
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert percentile([7.0], 0.9) == 7.0


def test_the_time_is_kept_but_never_fewer_rounds_than_the_least():
    log = []
    interleave([Timed(Replay(0, [1.0], log), 1)], 1, least=4, most=100, clock=ticking(10))
    assert len(log) == 3 + 4
    log.clear()
    interleave([Timed(Replay(0, [1.0], log), 1)], 5, least=1, most=100, clock=ticking(1))
    assert len(log) == 3 + 5
    log.clear()
    interleave([Timed(Replay(0, [1.0], log), 1)], 1e9, least=1, most=8, clock=ticking(1))
    assert len(log) == 3 + 8


@pytest.mark.parametrize("l2", [50 << 20, 60 << 20, 72 << 20])
@pytest.mark.parametrize("size", [100_000, 4_300_000, 15_600_000, 249_800_000, 1 << 30])
def test_copies_exceed_the_cache_four_times(size, l2):
    copies = num_copies(size, l2)
    assert copies * size > 4 * l2
    assert (copies - 1) * size <= 4 * l2


def test_copies_share_no_memory():
    class Operand:
        def __init__(self):
            self.weight = torch.ones(3)

        def __call__(self, a):
            return a * self.weight

    operands = copies_of(Operand(), 3)
    assert len({operand.weight.data_ptr() for operand in operands}) == 3


def test_what_takes_no_time_is_not_called_for_ever():
    timed = capture(ScriptedDevice(), [lambda a: a], torch.ones(1), us_limit=0.01)
    assert timed.calls == 500


def test_a_replay_is_long_enough_and_takes_all_copies_in_turn():
    device = ScriptedDevice()
    called = []
    operands = [lambda a, i=i: called.append(i) or a for i in range(3)]
    timed = capture(device, operands, torch.ones(1), us_limit=7.0)
    assert timed.calls % 3 == 0 and timed.calls * 7.0 >= 1000
    assert called == [0, 1, 2]


REFERENCE = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))


def check(operand, reference=REFERENCE):
    timed = capture(ScriptedDevice(), [operand], torch.zeros(64, 8), 1.0)
    return timed.check(reference, torch.float16)


def test_what_is_right_is_right():
    error, right = check(lambda a: REFERENCE.half())
    assert right and error.norm < 5e-4
    # Weights that were rounded too are still right.
    noise = torch.randn(64, 256, generator=torch.Generator().manual_seed(1)) * 2**-12
    assert check(lambda a: (REFERENCE + noise).half())[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c[3, 5].fill_(0),  # one element
        lambda c: c[:, 7].zero_(),
        lambda c: c[:, 7].copy_(c[:, 8].clone()),
        lambda c: c[0, 0].fill_(float("nan")),
        lambda c: c.mul_(1.01),
        lambda c: c[:, -1].fill_(float("inf")),
    ],
)
def test_what_is_wrong_is_wrong(damage):
    result = REFERENCE.half()
    damage(result)
    assert not check(lambda a: result)[1]


def test_an_output_that_is_not_written_is_wrong():
    device = ScriptedDevice()
    timed = capture(device, [lambda a: REFERENCE.half()], torch.zeros(1), 1.0)
    timed.replay.calls = [lambda: torch.full((64, 256), float("nan"))]
    assert not timed.check(REFERENCE, torch.float16)[1]


def test_another_shape_is_wrong():
    assert not error_of(REFERENCE[:, :-1], REFERENCE).allowed(torch.float16)


def test_the_reference_is_fp32_and_leaves_settings_alone():
    a, b = torch.randn(5, 300).half(), torch.randn(300, 4).half()
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        result = product(a, b)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert torch.allclose(result.double(), a.double() @ b.double(), atol=1e-4)
