# SPDX-License-Identifier: Apache-2.0
"""The rows of csrc/core/measured.h, read and written as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.crossover import Sample, starts

HEADER = Path(__file__).resolve().parents[1] / "csrc" / "core" / "measured.h"

_TABLE = re.compile(r"(kRows\[\] = \{\n    \{\},[^\n]*\n)(.*?)(\};\n)", re.DOTALL)
_ROW = re.compile(
    r"    \{(\d+), (\d+), (\d+), (\d+), (true|false), (\d+|kNever), (\d+|kNever), "
    r'"([\w-]+)", "(\w+)", "([\w.-]+)"\},  // (.+)'
)


@dataclass(frozen=True, order=True)
class TableRow:
    """struct Measurement, and the GPU's name as a comment."""

    architecture: int
    num_sms: int
    dram_gbps: int
    bits: int
    aligns: bool
    wgmma_from: int | None  # None: kNever
    scratch_from: int | None
    date: str
    commit: str
    file: str
    gpu: str

    def text(self) -> str:
        numbers = f"{self.architecture}, {self.num_sms}, {self.dram_gbps}, {self.bits}"
        flag = str(self.aligns).lower()
        found = (self.wgmma_from, self.scratch_from)
        begin = ", ".join("kNever" if start is None else str(start) for start in found)
        texts = ", ".join(f'"{text}"' for text in (self.date, self.commit, self.file))
        return f"    {{{numbers}, {flag}, {begin}, {texts}}},  // {self.gpu}\n"

    def replaces(self, other: TableRow) -> bool:
        """Whether find_measurement would take one for the other."""
        mine, theirs = (
            (row.architecture, row.num_sms, row.bits, row.aligns) for row in (self, other)
        )
        near = 10 * abs(self.dram_gbps - other.dram_gbps) <= max(self.dram_gbps, other.dram_gbps)
        return mine == theirs and near


def rows_of(samples: list[Sample], file: str) -> tuple[list[TableRow], list[str]]:
    """A row for each kind of weight, and why a kind has none."""
    rows, reasons = [], []
    for (bits, act_order), group in groupby(
        sorted(samples, key=lambda s: s.kind), lambda s: s.kind
    ):
        own = list(group)
        try:
            found = starts(own)
        except ValueError as error:
            reasons.append(f"no row for {bits} bits{', act-order' * act_order}: {error}")
            continue
        one = own[0]
        rows.append(
            TableRow(
                one.architecture, one.num_sms, one.dram_gbps, bits, act_order,
                found.wgmma, found.scratch, one.date[:10], one.commit or "unknown", file, one.gpu,
            )
        )  # fmt: skip
    return rows, reasons


def _body(text: str, header: Path) -> str:
    found = _TABLE.search(text)
    if found is None:
        raise ValueError(f"{header}: no table `kRows[] = {{ {{}}, ... }};`")
    return found[2]


def read_rows(header: Path = HEADER) -> list[TableRow]:
    rows = []
    for line in _body(header.read_text(), header).splitlines():
        found = _ROW.fullmatch(line)
        if found is None:
            raise ValueError(f"{header}: {line!r} is no row of the table; undo that edit")
        *numbers, flag, wgmma, scratch, date, commit, file, gpu = found.groups()
        begin = (None if start == "kNever" else int(start) for start in (wgmma, scratch))
        rows.append(TableRow(*map(int, numbers), flag == "true", *begin, date, commit, file, gpu))
    return rows


def write_rows(new: list[TableRow], header: Path = HEADER) -> None:
    """Adds rows; those of the same GPU and kind of weight make way."""
    kept = [old for old in read_rows(header) if not any(row.replaces(old) for row in new)]
    ordered = sorted([*kept, *new], key=lambda row: row.text())
    body = "".join(row.text() for row in ordered)
    text = header.read_text()
    header.write_text(_TABLE.sub(lambda found: found[1] + body + found[3], text, count=1))
