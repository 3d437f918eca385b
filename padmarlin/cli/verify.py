# SPDX-License-Identifier: Apache-2.0
"""``padmarlin verify``: prints what padmarlin.verify.verify_checkpoint finds."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from padmarlin.cli.grouped import grouped
from padmarlin.cli.manners import BAD_INPUT, CHECK_FAILED, bad_input_refused, complain, console
from padmarlin.verify import LayerResult, RanksFailed, Report, verify_checkpoint

_AXES = {"k": "K", "n": "N", None: "whole"}
_FAULTS_SHOWN = 20


class _Bar:
    """A bar on stderr while a terminal shows it."""

    def __init__(self) -> None:
        err = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._bars.add_task("verify", total=None)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start(self, layers: int) -> None:
        self._bars.update(self._task, total=layers)

    def advance(self, result: LayerResult) -> None:
        # The bar's own thread begins here, after the ranks were forked.
        self._bars.start()
        self._bars.update(self._task, advance=1, description=result.name)


def command(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="A", help="The original: GPTQ, AWQ, compressed-tensors.")
    ],
    other: Annotated[
        Path | None, typer.Argument(metavar="[B]", help="A padded, folded or repacked.")
    ] = None,
    tp: Annotated[
        int | None, typer.Option(help="Ranks.  [default: 2, or what B is repacked for]")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only these layers, e.g. '*down_proj'.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds without a result until the ranks have hung.")
    ] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run every layer of a checkpoint over N ranks against an independent reference.

    Each rank is a process that loads its part of a layer of A. Its weights must be those of A bit
    for bit, and the ranks' products together what float64 gives, up to rounding. With B, the ranks
    load B: it must be A padded by exact zeros, A in the order that folding gives, or what a fresh
    repack of A gives.
    Exit code 0: PASS, 1: FAIL, 2: a damaged checkpoint, or a rank that crashed or hung.
    """
    try:
        with bad_input_refused(), _Bar() as bar:
            report = verify_checkpoint(
                checkpoint, other, tp=tp, layers=layers, timeout=timeout, progress=bar
            )
    except RanksFailed as error:
        complain(f"padmarlin {error}")
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        _print(report)
    if not report.passed:
        raise typer.Exit(CHECK_FAILED)


def _print(report: Report) -> None:
    out = console()
    with out.capture() as captured:
        out.print(_title(report), soft_wrap=True)
        if report.layers:
            out.print(_table(report.layers))
        for line in _remarks(report):
            out.print(line, soft_wrap=True)
        out.print(_verdict(report))
    # Tables fill their lines with blanks.
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _title(report: Report) -> str:
    ranks = f"{report.tp} rank{'s' if report.tp > 1 else ''} ({report.backend})"
    if report.other is None:
        return f"[bold]{escape(report.checkpoint)}[/] over {ranks}"
    kind = f"{report.kind} {escape(report.checkpoint)}"
    return f"[bold]{escape(report.other)}[/] as {kind}, over {ranks}"


def _table(layers: tuple[LayerResult, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("layer", overflow="fold")
    for title in ("K x N", "cut", "wrong weights", "error", "of bound"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for layer in layers:
        table.add_row(
            escape(layer.name),
            f"{layer.k} x {layer.n}",
            _AXES[layer.axis],
            str(layer.weights_wrong),
            f"{layer.error:.1e}",
            f"{layer.of_bound:.2f}",
            "[green]ok[/]" if layer.passed else "[bold red]FAIL[/]",
        )
    return table


def _remarks(report: Report) -> list[str]:
    """What the table has no room for."""
    whole = [(layer.name, layer.not_cut) for layer in report.layers if layer.not_cut is not None]
    lines = [f"not cut: {escape(line)}" for line in grouped(whole)]
    faults = [escape(fault) for fault in report.faults]
    faults += [
        escape(f"{layer.name}: {fault}") for layer in report.layers for fault in layer.faults
    ]
    lines += [f"[red]wrong:[/] {fault}" for fault in faults[:_FAULTS_SHOWN]]
    if len(faults) > _FAULTS_SHOWN:
        lines.append(f"and {len(faults) - _FAULTS_SHOWN} more (--json has all)")
    if report.tensors_compared:
        lines.append(f"{report.tensors_compared} other tensors compared")
    return lines + [escape(note) for note in report.notes]


def _verdict(report: Report) -> str:
    wrong = sum(not layer.passed for layer in report.layers)
    total = f"{len(report.layers)} layer{'s' if len(report.layers) != 1 else ''}"
    if report.passed:
        return f"[bold green]PASS[/] {total}"
    return f"[bold red]FAIL[/] {wrong} of {total}" + (" and more" if report.faults else "")
