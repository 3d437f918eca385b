# SPDX-License-Identifier: Apache-2.0
"""From how many rows on one kernel family beats the other: out of times, without a GPU."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

MMA, WGMMA = FAMILIES = ("mma", "wgmma")
OK = "ok"


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
    """mma's time over wgmma's at one M, over all shapes: above 1, wgmma is faster."""

    mean: float  # geometric
    least: float
    most: float


def gains(samples: Iterable[Sample]) -> dict[int, Gain]:
    """By M, ascending. Raises ValueError unless both families have a right result of every shape
    at every M: a mean over what happened to work would say nothing."""
    times: dict[int, dict[tuple[object, ...], dict[str, float]]] = defaultdict(dict)
    for sample in samples:
        if sample.status != OK or sample.us is None:
            raise ValueError(f"{sample.name}: {sample.status}")
        shape = (sample.model, sample.layer, sample.tp, sample.dtype)
        times[sample.m].setdefault(shape, {})[sample.family] = sample.us
    shapes = {shape for of in times.values() for shape in of}
    found = {}
    for m, of in sorted(times.items()):
        complete = of.keys() == shapes and all(by.keys() == set(FAMILIES) for by in of.values())
        if not complete:
            raise ValueError(f"M={m}: not every shape has a time of each family")
        ratios = [by[MMA] / by[WGMMA] for by in of.values()]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        found[m] = Gain(mean, min(ratios), max(ratios))
    return found


def crossover(by_m: dict[int, Gain]) -> int | None:
    """The least measured M from which wgmma is no slower, in the mean, at every larger one too.
    None: at no M. Between two measured M mma keeps what nobody has shown to be wgmma's."""
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
