# SPDX-License-Identifier: Apache-2.0
"""From how many rows on which kernel family is the fastest: out of times, without a GPU."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

MMA, WGMMA, SCRATCH = "mma", "wgmma", "scratch"
OK = "ok"


def families_of(architecture: int) -> tuple[str, ...]:
    """What a GPU (90: sm_90) has to choose between."""
    return (MMA, WGMMA, SCRATCH) if architecture == 90 else (MMA, SCRATCH)


@dataclass(frozen=True)
class Sample:
    """One family on one case: a line of the results file."""

    date: str
    gpu: str
    driver: str | None
    torch: str
    commit: str | None
    read_gb_s: float
    matrix_tflop_s: float
    architecture: int  # these three as the dispatcher has them
    num_sms: int
    dram_gbps: int
    model: str
    layer: str
    tp: int
    m: int
    k: int
    n: int
    dtype: str
    bits: int
    act_order: bool
    family: str
    us: float | None
    us_spread: float | None  # from the 10th to the 90th percentile
    error: float | None  # |result - reference| / |reference|
    status: str  # "ok", or why there is no time

    @property
    def kind(self) -> tuple[int, bool]:
        """What has a row of its own in the table: bits, and whether a pass gathers activations."""
        return self.bits, self.act_order

    @property
    def name(self) -> str:
        marks = f"w{self.bits}{' act-order' * self.act_order} {self.family}"
        return f"{self.model} {self.layer} TP{self.tp} M={self.m} {marks}"


@dataclass(frozen=True)
class Gain:
    """One family's time over another's at one M, over all shapes: above 1, the other is faster."""

    mean: float  # geometric
    least: float
    most: float


Times = dict[int, dict[tuple[object, ...], dict[str, float]]]
"""Microseconds by M (ascending), shape and family."""


def complete_times(samples: Iterable[Sample]) -> Times:
    """Raises ValueError unless every family that was measured has a right result of every shape at
    every M: a mean over what happened to work would say nothing."""
    times: Times = defaultdict(dict)
    families = set()
    for sample in samples:
        if sample.status != OK or sample.us is None:
            raise ValueError(f"{sample.name}: {sample.status}")
        shape = (sample.model, sample.layer, sample.tp, sample.dtype)
        times[sample.m].setdefault(shape, {})[sample.family] = sample.us
        families.add(sample.family)
    shapes = {shape for of in times.values() for shape in of}
    for m, of in times.items():
        if of.keys() != shapes or any(by.keys() != families for by in of.values()):
            raise ValueError(f"M={m}: not every shape has a time of each family")
    return dict(sorted(times.items()))


def gains(times: Times, challenger: str, holder: Callable[[int], str]) -> dict[int, Gain]:
    """By M: the time of the family that `holder(m)` names over the challenger's. Empty if the
    challenger was not measured."""
    found = {}
    for m, of in times.items():
        if any(challenger not in by for by in of.values()):
            continue
        ratios = [by[holder(m)] / by[challenger] for by in of.values()]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        found[m] = Gain(mean, min(ratios), max(ratios))
    return found


@dataclass(frozen=True)
class Starts:
    """From how many rows on the dispatcher takes which family, and why. None: at none."""

    wgmma: int | None
    scratch: int | None
    wgmma_gains: dict[int, Gain]  # over mma
    scratch_gains: dict[int, Gain]  # over the fused kernel that `wgmma` chooses


def starts(samples: Iterable[Sample]) -> Starts:
    times = complete_times(samples)
    wgmma_gains = gains(times, WGMMA, lambda m: MMA)
    wgmma = crossover(wgmma_gains)

    def fused(m: int) -> str:
        return WGMMA if wgmma is not None and m >= wgmma else MMA

    scratch_gains = gains(times, SCRATCH, fused)
    return Starts(wgmma, crossover(scratch_gains), wgmma_gains, scratch_gains)


def crossover(by_m: dict[int, Gain]) -> int | None:
    """The least measured M from which the challenger is no slower, in the mean, at every larger one
    too. None: at no M. Between two measured M the holder keeps what nobody has shown to be the
    challenger's."""
    found = None
    for m, gain in sorted(by_m.items(), reverse=True):
        if gain.mean < 1:
            break
        found = m
    return found


def append(path: Path, samples: Iterable[Sample]) -> None:
    """Written as they come, so that a run that is cut short keeps what it has."""
    with open(path, "a") as file:
        for sample in samples:
            file.write(json.dumps(asdict(sample)) + "\n")


def read(path: Path) -> list[Sample]:
    names = {field.name for field in fields(Sample)}
    samples = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            found = json.loads(line)
            samples.append(Sample(**{name: found[name] for name in names}))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: no result of tune.py: {error!r}") from error
    if not samples:
        raise ValueError(f"{path}: empty")
    machines = {(s.architecture, s.num_sms, s.dram_gbps, s.commit) for s in samples}
    if len(machines) != 1:
        raise ValueError(f"{path}: results of {len(machines)} GPUs or commits, expected one")
    return samples
