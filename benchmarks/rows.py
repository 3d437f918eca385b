# SPDX-License-Identifier: Apache-2.0
"""Results as JSON lines: one object per case and peer, with the machine that gave it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.cases import Case


@dataclass(frozen=True)
class Machine:
    """Where and of what a row was measured."""

    date: str
    gpu: str
    driver: str | None
    torch: str
    commit: str | None
    read_gb_s: float  # measured in the same run
    matrix_tflop_s: float


@dataclass(frozen=True)
class Row:
    """padmarlin and one peer on one case. Times are medians in microseconds; None: not measured.

    A case without any peer has one row whose peer is None.
    """

    date: str
    gpu: str
    driver: str | None
    torch: str
    commit: str | None
    model: str
    layer: str
    tp: int
    m: int
    k: int
    n: int
    group: int
    dtype: str
    bits: int
    act_order: bool
    kernel: str
    us: float | None
    us_limit: float
    fraction_of_limit: float | None  # us_limit / us
    peer: str | None
    peer_us: float | None
    ratio: float | None  # peer_us / us: above 1, padmarlin is faster
    # Beyond what the issue asks for.
    rank: int
    k_start: int
    symmetric: bool
    us_spread: float | None  # from the 10th to the 90th percentile
    peer_spread: float | None
    error: float | None  # |result - reference| / |reference|, of padmarlin
    peer_error: float | None
    status: str  # "ok", or why there is no time
    peer_status: str | None
    bytes: int
    flops: int
    read_gb_s: float
    matrix_tflop_s: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What is measured: rows of two runs with the same key can be compared."""
        return (*self.case_key, self.peer)

    @property
    def case_key(self) -> tuple[Any, ...]:
        return (*self.series_key, self.m)

    @property
    def series_key(self) -> tuple[Any, ...]:
        """The part and its coding: what a sweep over M keeps."""
        what = ("model", "layer", "tp", "k", "n", "k_start", "group", "dtype", "bits")
        return tuple(getattr(self, name) for name in (*what, "act_order", "symmetric"))

    @property
    def name(self) -> str:
        marks = [self.dtype, f"w{self.bits}", f"g{self.group}"]
        marks += ["act-order"] * self.act_order + ["zeros"] * (not self.symmetric)
        return f"{self.model} {self.layer} TP{self.tp} M={self.m} {' '.join(marks)}"


@dataclass(frozen=True)
class Outcome:
    """What came of one contestant on one case."""

    status: str  # "ok", or why there is no time
    us: float | None = None
    spread: float | None = None
    error: float | None = None


def make_row(
    machine: Machine,
    case: Case,
    kernel: str,
    us_limit: float,
    own: Outcome,
    peer: str | None = None,
    other: Outcome | None = None,
) -> Row:
    part, coding = case.part, case.coding
    comparable = other is not None and other.us is not None and own.us is not None
    return Row(
        **asdict(machine),
        model=part.layer.model,
        layer=part.layer.name,
        tp=part.tp,
        rank=part.rank,
        m=case.m,
        k=part.k,
        n=part.n,
        k_start=part.k_start,
        group=part.group,
        dtype=coding.dtype,
        bits=coding.bits,
        act_order=coding.act_order,
        symmetric=coding.symmetric,
        kernel=kernel,
        us=own.us,
        us_spread=own.spread,
        us_limit=us_limit,
        fraction_of_limit=None if own.us is None else us_limit / own.us,
        error=own.error,
        status=own.status,
        peer=peer,
        peer_us=other.us if other else None,
        peer_spread=other.spread if other else None,
        peer_error=other.error if other else None,
        peer_status=other.status if other else None,
        ratio=other.us / own.us if comparable else None,
        bytes=case.bytes,
        flops=case.flops,
    )


def append(path: Path, rows: Iterable[Row]) -> None:
    """Written as they come, so that a run that is cut short keeps what it has."""
    with open(path, "a") as file:
        for row in rows:
            file.write(json.dumps(asdict(row)) + "\n")


def read(path: Path) -> list[Row]:
    names = {field.name for field in fields(Row)}
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            # Fields of later versions are no reason not to read the others.
            rows.append(Row(**{name: found[name] for name in names}))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: no row of a benchmark: {error!r}") from error
    return rows
