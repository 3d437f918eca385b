# SPDX-License-Identifier: Apache-2.0
"""How contestants are measured: correct first, then interleaved, the median with its spread.

What captures and times calls is given: a CUDA device (device.py), or a double in tests. No torch
function here looks at a clock.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Operand = Callable[[Tensor], Tensor]  # a prepared weight: called with activations

# A replay lasts at least this long, so that what starts and ends it (a few us) is below 1 %.
REPLAY_US = 1000.0
# No call is faster inside a graph, however little it does: a launch takes that long.
LEAST_CALL_US = 2.0
WARM_UP_REPLAYS = 3


class Replay(Protocol):
    """Calls that were captured once and run again and again, in order."""

    outputs: list[Tensor]  # of the first calls, one per copy of the weights

    def time(self) -> float:
        """Runs them all; microseconds in all."""


class Device(Protocol):
    """Where contestants run."""

    name: str  # of torch's kind: "cuda", "cpu"
    l2_bytes: int

    def capture(self, calls: Sequence[Callable[[], Tensor]], keep: int) -> Replay:
        """Runs the calls, then captures them; the outputs of the first `keep` stay."""

    def works(self) -> bool:
        """False once a failed kernel has made the device unusable for this process."""


@dataclass(frozen=True)
class Error:
    """How far a result is from the reference."""

    norm: float  # |result - reference| / |reference|
    worst: float  # the largest difference over the root mean square of the reference

    def allowed(self, dtype: torch.dtype) -> bool:
        """One rounding to the dtype is off by at most u = 2^-11 (fp16) or 2^-8 (bf16, 2^-9 to the
        nearest) of a value, 0.4 u in the norm; peers that round their weights too add as much
        again. Values reach six times their root mean square. A single wrong element differs by
        about 1 in `worst`, a wrong column of 8192 by 0.01 in `norm`."""
        unit = torch.finfo(dtype).eps / 2
        return self.norm <= 2 * unit and self.worst <= 16 * unit  # NaN is not


def error_of(result: Tensor, reference: Tensor) -> Error:
    if result.shape != reference.shape:
        return Error(float("nan"), float("nan"))
    difference = result.float() - reference
    norm = reference.norm()
    worst = difference.abs().max() * reference.numel() ** 0.5 / norm
    return Error(float(difference.norm() / norm), float(worst))


def product(a: Tensor, dense: Tensor) -> Tensor:
    """The reference: fp32 throughout. On a GPU the matrix units' fp32 has 10 bits: not allowed."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return a.float() @ dense.float()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def num_copies(weight_bytes: int, l2_bytes: int) -> int:
    """Copies of a weight that together exceed the L2 cache four times, so that each is cold when
    its turn comes again, whatever the cache keeps."""
    return 4 * l2_bytes // weight_bytes + 1


def copies_of(operand: Operand, count: int) -> list[Operand]:
    return [operand, *(copy.deepcopy(operand) for _ in range(count - 1))]


def capture(device: Device, operands: list[Operand], a: Tensor, us_limit: float) -> Timed:
    """All operands in turn, over and over, so that no call finds its weights in the cache."""
    rounds = math.ceil(REPLAY_US / (max(us_limit, LEAST_CALL_US) * len(operands)))

    def call(operand: Operand) -> Callable[[], Tensor]:
        return lambda: operand(a)

    calls = [call(operand) for operand in operands] * rounds
    return Timed(device.capture(calls, keep=len(operands)), len(calls))


@dataclass
class Timed:
    """A captured contestant."""

    replay: Replay
    calls: int

    def check(self, reference: Tensor, dtype: torch.dtype) -> tuple[Error, bool]:
        """The worst error of what a replay leaves in memory that held NaN; whether all are small
        enough."""
        for output in self.replay.outputs:
            output.fill_(float("nan"))
        self.replay.time()
        errors = [error_of(output, reference) for output in self.replay.outputs]
        wrong = [error for error in errors if not error.allowed(dtype)]
        return (wrong or [max(errors, key=lambda e: e.norm)])[0], not wrong


@dataclass(frozen=True)
class Timing:
    us: float  # the median of all replays, per call
    spread: float  # from the 10th to the 90th percentile


def percentile(values: list[float], share: float) -> float:
    """Of sorted values, with linear interpolation."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def interleave(
    contestants: Sequence[Timed],
    seconds: float,
    *,
    least: int = 7,
    most: int = 40,
    clock: Callable[[], float] = time.monotonic,
) -> list[Timing]:
    """Each contestant once per round, so that a clock that drops drops for all; the one that
    begins changes, so that nobody always follows the same neighbour."""
    samples: list[list[float]] = [[] for _ in contestants]
    for timed in contestants:
        for _ in range(WARM_UP_REPLAYS):
            timed.replay.time()
    end = clock() + seconds
    for turn in range(most):
        for place in range(len(contestants)):
            which = (place + turn) % len(contestants)
            samples[which].append(contestants[which].replay.time() / contestants[which].calls)
        if turn + 1 >= least and clock() >= end:
            break
    ordered = [sorted(of) for of in samples]
    return [
        Timing(percentile(of, 0.5), percentile(of, 0.9) - percentile(of, 0.1)) for of in ordered
    ]
