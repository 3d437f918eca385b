# SPDX-License-Identifier: Apache-2.0
"""A device for tests: it really computes, on the CPU, and says times that a test chose.

Nothing that comes of it is a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from benchmarks.cases import Case, Coding
from benchmarks.rows import Machine
from benchmarks.shapes import Layer, Part
from padmarlin.tradeoff.gpus import Gpu

MACHINE = Machine("2026-01-01T00:00:00+00:00", "a double", None, "2", "abc", 1000.0, 100.0)
GPU = Gpu("a double", 1e12, 1e14, "double", "tests")


@dataclass
class ScriptedReplay:
    calls: Sequence[Callable[[], Tensor]]
    us: float  # per call
    log: list[int]
    number: int

    def __post_init__(self) -> None:
        self.outputs: list[Tensor] = []

    def time(self) -> float:
        """What a graph does: the same addresses are written again."""
        for output, call in zip(self.outputs, self.calls, strict=False):
            output.copy_(call())
        self.log.append(self.number)
        return self.us * len(self.calls)


@dataclass
class ScriptedDevice:
    """`us(i)` is the time of one call of what is captured as number i."""

    us: Callable[[int], float] = lambda number: 10.0 + number
    name: str = "cpu"
    l2_bytes: int = 5000
    broken: bool = False
    captured: int = 0
    log: list[int] = field(default_factory=list)  # replays in the order they ran

    def capture(self, calls: Sequence[Callable[[], Tensor]], keep: int) -> ScriptedReplay:
        replay = ScriptedReplay(calls[:keep], self.us(self.captured), self.log, self.captured)
        # A short list of calls stands for the whole: time() scales by it.
        replay.outputs = [call().clone() for call in calls[:keep]]
        replay.us *= len(calls) / keep
        self.captured += 1
        return replay

    def works(self) -> bool:
        return not self.broken

    def machine(self, rates: object, facts: object) -> Machine:
        return MACHINE


def make_case(
    k: int = 192,
    n: int = 96,
    *,
    m: int = 3,
    k_start: int = 0,
    group: int = 64,
    whole: int | None = None,
    tp: int = 1,
    **coding: object,
) -> Case:
    """A small case; with k_start, a part of a layer of `whole` rows."""
    layer = Layer("tiny", "layer", whole or k_start + k, n, "k", (tp,), group)
    rank = k_start // k if k_start else 0
    return Case(Part(layer, tp, rank, k, n, k_start, group), m, Coding(**coding))
