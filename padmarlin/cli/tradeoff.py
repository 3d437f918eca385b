# SPDX-License-Identifier: Apache-2.0
"""``padmarlin tradeoff``: prints what padmarlin.tradeoff finds; nothing is decided here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from padmarlin.cli.manners import bad_input_refused, console
from padmarlin.cli.progress import progress_bar
from padmarlin.errors import refusal
from padmarlin.models import LinearLayer
from padmarlin.tradeoff import (
    Entry,
    Total,
    TradeoffTable,
    check_plot,
    save_plot,
    to_markdown,
    tradeoff,
)

_AXES = {"k": "K is cut", "n": "N is cut", None: "every rank has all of it"}


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        expected = "numbers with commas between them"
        raise ValueError(refusal("tradeoff", option, repr(text), expected)) from None


def command(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A folder of fp16 or bf16 weights, or a config.json."),
    ],
    tp: Annotated[int, typer.Option(help="Tensor-parallel size.")],
    bits: Annotated[str, typer.Option(help="4, 8 or both.")] = "4,8",
    group_size: Annotated[
        str, typer.Option(help="Rows per group; -1: one per column.")
    ] = "32,64,128",
    gpu: Annotated[
        str, typer.Option(help="Whose limits: h200, h100, a100, l40s or 4090.")
    ] = "h200",
    rows: Annotated[
        int | None,
        typer.Option(
            help="Output rows of every matrix to round; 0: all.  [default: 1024; random model: 64]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown instead of a table.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Also draw error against bytes (needs matplotlib)."),
    ] = None,
) -> None:
    """What bits and group sizes mean for a model, before it is quantized.

    For every linear layer and choice: the error of rounding its weights to the nearest code, bytes
    and padding per rank, the least time a GPU could take (a limit, no measurement), and whether
    ranks share groups. A bare config.json has no weights: random ones stand in, and it says so.
    """
    with bad_input_refused():
        if as_json and markdown:
            expected = "one of them"
            raise ValueError(refusal("tradeoff", "--json", "--markdown as well", expected))
        if plot is not None:
            check_plot(plot)
        choices = _numbers("--bits", bits), _numbers("--group-size", group_size)
        with progress_bar() as bar:
            table = tradeoff(
                model,
                tp=tp,
                bits=choices[0],
                group_sizes=choices[1],
                gpu=gpu,
                rows=rows,
                progress=bar,
            )
        if plot is not None:
            save_plot(table, plot)
    if as_json:
        typer.echo(json.dumps(table.to_json(), indent=2))
    elif markdown:
        typer.echo(to_markdown(table))
    else:
        out = console()
        with out.capture() as captured:
            _print(table, out)
        typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _print(table: TradeoffTable, out: Console) -> None:
    gpu = table.gpu
    name = table.model.architecture or "unknown architecture"
    out.print(f"[bold]{escape(table.model.path)}[/]: {escape(name)} at TP {table.tp}")
    out.print(f"weights: {table.sample}")
    out.print(
        f"times: limits, not measurements, of {gpu.title}: {gpu.bytes_per_second / 1e12:.3g} TB/s, "
        f"{gpu.flops / 1e12:.4g} TFLOP/s ({gpu.basis}: {gpu.source})"
    )
    for note in table.notes:
        out.print(f"note: {escape(note)}")
    out.print()
    out.print("[bold]  bits  group    error   MB/rank  padding  M=1 us   M=16   M=256  groups[/]")
    for layer in table.layers:
        _print_layer(layer, table.of(layer), out)
    out.print("[bold]all layers[/]")
    for total in table.totals:
        out.print(_total_line(total))
    out.print(f"\n{table.conclusion()}")


def _print_layer(layer: LinearLayer, entries: tuple[Entry, ...], out: Console) -> None:
    out.print(f"[bold]{escape(layer.pattern)}[/]", soft_wrap=True)
    first = entries[0]
    size = first.problem or f"{first.k} x {first.n} per rank"
    copies = f", {layer.count} of them" if layer.count > 1 else ""
    out.print(f"  {escape(size)}; {_AXES[layer.axis]}{copies}", style="dim")
    for entry in entries:
        out.print(_line(entry))


def _line(entry: Entry) -> str:
    start = _start(entry.choice.bits, entry.choice.group_size, entry.error)
    if entry.problem:
        return f"{start}  impossible"
    times = "".join(f"{time:8.1f}" for time in entry.limits_us.values())
    groups = "[yellow]straddle[/]" if entry.straddles else "whole"
    return f"{start}{entry.rank_bytes / 1e6:10.1f}{f'+{entry.padding:.1%}':>9}{times}  {groups}"


def _total_line(total: Total) -> str:
    start = _start(total.choice.bits, total.choice.group_size, total.error)
    groups = "whole"
    if total.straddling:
        groups = f"[yellow]straddle[/] in {len(total.straddling)} above"
    return f"{start}{total.rank_bytes / 1e6:10.1f}{'':>33}  {groups}"


def _start(bits: int, group_size: int, error: float) -> str:
    return f"{bits:6}{group_size:7}{f'{error:.2%}':>9}"
