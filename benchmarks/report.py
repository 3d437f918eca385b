# SPDX-License-Identifier: Apache-2.0
"""Rows for people: an aligned table, a line per case, as they come."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.rates import Rates
from benchmarks.rows import Machine, Row


def print_machine(console: Console, machine: Machine, rates: Rates, skipped: Sequence[str]) -> None:
    console.print(
        f"{machine.gpu}, driver {machine.driver}, torch {machine.torch}, commit {machine.commit}, "
        f"{machine.date}"
    )
    console.print(
        f"measured now: reads {machine.read_gb_s:.0f} GB/s ({'; '.join(rates.seen)}), "
        f"multiplies {machine.matrix_tflop_s:.0f} TFLOP/s (cuBLAS, fp16, random data)"
    )
    for line in skipped:
        console.print(f"skipped: {line}", style="dim")


HEADINGS = (
    ("case", "left"), ("K x N", "right"), ("us", "right"), ("+-", "right"), ("GB/s", "right"),
    ("TFLOP/s", "right"), ("of limit", "right"), ("peer", "left"), ("peer us", "right"),
    ("+-", "right"), ("peer / us", "right"), ("notes", "left"),
)  # fmt: skip


def new_table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, justify in HEADINGS:
        table.add_column(heading, justify=justify, no_wrap=heading != "notes")
    return table


def add_rows(table: Table, rows: Sequence[Row]) -> None:
    """The rows of one case: what is padmarlin's own stands in the first."""
    for index, row in enumerate(rows):
        own = own_cells(row) if index == 0 else ("",) * 7
        table.add_row(*own, *peer_cells(row), note(row, first=index == 0))


def own_cells(row: Row) -> tuple[str, ...]:
    name = row.name + (f" from row {row.k_start}" if row.k_start else "")
    if row.us is None:
        return (name, f"{row.k} x {row.n}", *("-",) * 5)
    return (
        name,
        f"{row.k} x {row.n}",
        f"{row.us:.2f}",
        f"{row.us_spread:.2f}",
        f"{row.bytes / row.us / 1e3:.0f}",
        f"{row.flops / row.us / 1e6:.1f}",
        f"{row.fraction_of_limit:.1%}",
    )


def peer_cells(row: Row) -> tuple[str, ...]:
    if row.peer is None:
        return ("", "", "", "")
    if row.peer_us is None:
        return (row.peer, "-", "", "")
    ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
    return (row.peer, f"{row.peer_us:.2f}", f"{row.peer_spread:.2f}", ratio)


def note(row: Row, first: bool) -> str:
    notes = [row.status] if first and row.status != "ok" else []
    if row.peer_status not in (None, "ok"):
        notes.append(str(row.peer_status))
    if first and row.fraction_of_limit is not None and row.fraction_of_limit > 1:
        notes.append("above the limit: the reading kernel is slower than the memory")
    return "; ".join(notes)


def print_line(console: Console, rows: Sequence[Row]) -> None:
    """As soon as a case is done: a run that is cut short has said what it found."""
    row = rows[0]
    if row.us is None:
        console.print(f"{row.name}: {row.status}", style="bold red")
        return
    peers = ", ".join(f"{r.peer} {r.ratio:.2f}x" for r in rows if r.ratio is not None)
    own = f"{row.name}: {row.us:.2f} us, {row.fraction_of_limit:.1%} of the limit"
    console.print(f"{own}; {peers}" if peers else own, style="dim")


def print_rows(console: Console, groups: Sequence[Sequence[Row]]) -> None:
    table = new_table()
    for rows in groups:
        add_rows(table, rows)
    console.print(table)
