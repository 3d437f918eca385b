# SPDX-License-Identifier: Apache-2.0
"""Two runs against each other: what became faster, what slower, and what of it is noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.rows import Row

NOISE = 0.02
"""A change that is smaller, or smaller than the two spreads together, is called the same."""


@dataclass(frozen=True)
class Change:
    """One case in both runs."""

    old: Row
    new: Row

    @property
    def speedup(self) -> float:
        """Above 1: the new run is faster."""
        return times(self.old)[0] / times(self.new)[0]

    @property
    def verdict(self) -> str:
        (old, old_spread), (new, new_spread) = times(self.old), times(self.new)
        if abs(old - new) <= max(NOISE * old, (old_spread + new_spread) / 2):
            return "same"
        return "faster" if new < old else "SLOWER"


def times(row: Row) -> tuple[float, float]:
    assert row.us is not None
    return row.us, row.us_spread or 0.0


def by_case(rows: Sequence[Row]) -> dict[tuple[Any, ...], Row]:
    """padmarlin's own time of each case: all rows of a case agree on it. The last run counts."""
    return {row.case_key: row for row in rows if row.us is not None}


def changes(old: Sequence[Row], new: Sequence[Row]) -> list[Change]:
    before, after = by_case(old), by_case(new)
    return [Change(before[key], after[key]) for key in after if key in before]


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def print_comparison(console: Console, old: Sequence[Row], new: Sequence[Row]) -> None:
    found = changes(old, new)
    if not found:
        console.print("no case is in both runs")
        return
    for name, rows in (("old", old), ("new", new)):
        first = rows[0]
        console.print(
            f"{name}: {first.gpu}, commit {first.commit}, {first.date}, reads "
            f"{first.read_gb_s:.0f} GB/s, multiplies {first.matrix_tflop_s:.0f} TFLOP/s"
        )
    if old[0].gpu != new[0].gpu:
        console.print("different GPUs: compare the fractions of the limit, not the times")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("case", no_wrap=True)
    for heading in ("old us", "new us", "old / new", "old of limit", "new of limit"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for change in sorted(found, key=lambda change: change.speedup):
        table.add_row(
            change.new.name,
            f"{change.old.us:.2f}",
            f"{change.new.us:.2f}",
            f"{change.speedup:.3f}",
            f"{change.old.fraction_of_limit:.1%}",
            f"{change.new.fraction_of_limit:.1%}",
            change.verdict,
        )
    console.print(table)
    mean = geometric_mean([change.speedup for change in found])
    slower = sum(change.verdict == "SLOWER" for change in found)
    only = len(by_case(new)) - len(found), len(by_case(old)) - len(found)
    console.print(
        f"{len(found)} cases, old / new {mean:.3f} (geometric mean), {slower} slower; "
        f"{only[0]} only in the new run, {only[1]} only in the old one"
    )
