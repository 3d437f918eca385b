# SPDX-License-Identifier: Apache-2.0
"""``padmarlin plan``: prints what padmarlin.models.plan_model finds; nothing is decided here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from padmarlin.cli.manners import CHECK_FAILED, bad_input_refused, console
from padmarlin.engines import ENGINES, Outcome, Verdict
from padmarlin.errors import check_choice, refusal
from padmarlin.models import LayerCut, LinearLayer, ModelPlan, Quantization, Remedy, plan_model

_SHORT = {
    Outcome.ACCEPT: "[green]ok[/]",
    Outcome.REFUSE: "[yellow]refuses[/]",
    Outcome.WRONG: "[bold red]WRONG[/]",
    Outcome.UNKNOWN: "[cyan]unknown[/]",
}
_EVERYBODY = "tensor parallelism as such"
_AXES = {"k": "K is cut", "n": "N is cut", None: "every rank has all of it"}


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            refusal("plan", "--tp", repr(text), "numbers with commas between them: 1,2,4,8")
        ) from None


def command(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A checkpoint folder or a config.json.")
    ],
    tp: Annotated[str, typer.Option(help="Tensor-parallel sizes to plan for.")] = "1,2,4,8",
    bits: Annotated[int | None, typer.Option(help="4 or 8.  [default: the files', else 4]")] = None,
    group_size: Annotated[
        int | None,
        typer.Option(help="Rows per group; -1: one per column.  [default: the files', else 128]"),
    ] = None,
    act_order: Annotated[
        bool | None,
        typer.Option("--act-order/--no-act-order", help="Rows of a group lie anywhere (desc_act)."),
    ] = None,
    sym: Annotated[
        bool | None, typer.Option("--sym/--asym", help="Symmetric, or with zero points.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 if the engine would fail or answer wrong.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="Which engine --check asks: vllm, sglang or marlin.")
    ] = "vllm",
) -> None:
    """What tensor parallelism makes of a model, before it is deployed.

    For every linear layer and TP size: the shape per rank, what strict Marlin, vLLM and SGLang do
    with it, what padmarlin does; then what can be done about it. Only config.json and the headers
    of safetensors files are read.
    """
    with bad_input_refused():
        check_choice("plan", "--engine", engine, tuple(ENGINES))
        found = plan_model(
            model,
            tp=_numbers(tp),
            bits=bits,
            group_size=group_size,
            act_order=act_order,
            sym=sym,
        )
    passes = not found.failures(engine)
    if as_json:
        values = found.to_json()
        if check:
            values["check"] = {"engine": engine, "passes": passes}
        typer.echo(json.dumps(values, indent=2))
    else:
        out = console()
        with out.capture() as captured:
            _print(found, out)
        # Tables fill their lines with blanks.
        typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
        if check:
            typer.echo(f"\n{_check_line(found, engine)}")
    if check and not passes:
        raise typer.Exit(CHECK_FAILED)


def _check_line(plan: ModelPlan, engine: str) -> str:
    failures = plan.failures(engine)
    if not failures:
        return f"check: {ENGINES[engine].title} takes every layer"
    sizes = ", ".join(str(tp) for tp in plan.tp if not plan.works(engine, tp))
    layers = len({cut.layer.name for cut in failures})
    return f"check: FAILED: {ENGINES[engine].title} at TP {sizes}, {layers} layer(s)"


def _print(plan: ModelPlan, out: Console) -> None:
    reasons = _Reasons()
    out.print(_title(plan))
    for note in plan.model.notes:
        out.print(f"note: {escape(note)}")
    out.print()
    out.print(_grid(_HEADERS, style="bold"))
    for layer, kind in plan.model.layers:
        if kind is not None:
            out.print(f"[bold]{escape(layer.pattern)}[/]", soft_wrap=True)
            out.print(_layer_line(layer, kind, plan), style="dim")
            out.print(_grid(*[_row(cut, reasons) for cut in plan.cuts if cut.layer is layer]))
    _print_unquantized(plan, out)
    reasons.print(out)
    out.print("\n[bold]What to do[/], the cheapest first")
    _print_remedies([r for r in plan.remedies if r.kind != "folklore"], out)
    folklore = [remedy for remedy in plan.remedies if remedy.kind == "folklore"]
    if folklore:
        out.print("\n[bold]What people try[/]")
        _print_remedies(folklore, out)


def _title(plan: ModelPlan) -> str:
    name = plan.model.architecture or "unknown architecture"
    count = sum(layer.count for layer, kind in plan.model.layers if kind is not None)
    common = plan.model.scheme.common
    says = "assumed" if common.source == "assumed" else f"by {common.source}"
    return (
        f"[bold]{escape(plan.model.path)}[/]: {escape(name)}, {count} quantized linear layers\n"
        f"{_settings(common)} ({says})"
    )


def _settings(kind: Quantization) -> str:
    groups = "one group per column" if kind.group_size == -1 else f"groups of {kind.group_size}"
    symmetry = "symmetric" if kind.sym else "asymmetric"
    order = ", act-order" if kind.act_order else ""
    return f"{kind.method}, {kind.bits} bits, {groups}, {symmetry}{order}"


def _layer_line(layer: LinearLayer, kind: Quantization, plan: ModelPlan) -> str:
    parts = ""
    if len(layer.parts) > 1:
        parts = " = " + " + ".join(f"{part.name} {part.n}" for part in layer.parts)
    own = "" if kind == plan.model.scheme.common else f"; {_settings(kind)}"
    copies = f", {layer.count} of them" if layer.count > 1 else ""
    return f"  {layer.k} x {layer.n}{parts}; {_AXES[layer.axis]}{copies}{own}"


_HEADERS = ("TP", "K x N per rank", "Marlin", "vLLM", "SGLang", "padmarlin stores")
_WIDTHS = (6, 18, 13, 13, 13, 27)  # 100 columns with the gaps of 2


def _grid(*rows: tuple[str, ...], style: str = "") -> Table:
    """Rows under the common headings: every layer's table has the same columns."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), style=style)
    for position, width in enumerate(_WIDTHS):
        table.add_column(width=width, justify="right" if position == 0 else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _row(cut: LayerCut, reasons: _Reasons) -> tuple[str, ...]:
    if cut.problem:
        nobody = next(iter(cut.verdicts.values()))
        mark = reasons.mark(replace(nobody, engine=_EVERYBODY))
        return (str(cut.tp), f"impossible{mark}", *["-"] * (len(cut.verdicts) + 1))
    verdicts = [_SHORT[v.outcome] + reasons.mark(v) for v in cut.verdicts.values()]
    return (str(cut.tp), f"{cut.k} x {cut.n}", *verdicts, _padding(cut))


def _padding(cut: LayerCut) -> str:
    assert cut.padmarlin is not None
    bound = "" if cut.padmarlin.exact else "<= "
    size = f"{bound}{cut.padmarlin.padded_k} x {cut.padmarlin.padded_n}"
    return f"{size} +{cut.padmarlin.overhead:.1%}" if cut.padmarlin.overhead else size


class _Reasons:
    """Footnotes, numbered in the order of appearance. Cuts that one fact is about share a footnote,
    which has the numbers of the first."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._verdicts: list[Verdict] = []
        self._varies: set[int] = set()

    def mark(self, verdict: Verdict) -> str:
        if not verdict.reason:
            return ""
        number = self._numbers.setdefault((verdict.engine, verdict.rule), len(self._numbers) + 1)
        if number > len(self._verdicts):
            self._verdicts.append(verdict)
        elif self._verdicts[number - 1].reason != verdict.reason:
            self._varies.add(number)
        return f" \\[{number}]"

    def print(self, out: Console) -> None:
        if not self._verdicts:
            return
        out.print("\n[bold]Why[/]")
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
        table.add_column(justify="right")
        table.add_column(overflow="fold")
        for number, verdict in enumerate(self._verdicts, 1):
            table.add_row(f"\\[{number}]", _explained(verdict, number in self._varies))
        out.print(table)


def _explained(verdict: Verdict, is_example: bool) -> str:
    known = verdict.evidence.value
    known = "not verified" if known == "none" else known
    source = f": {verdict.source}" if verdict.source else ""
    if verdict.engine == _EVERYBODY:
        return escape(f"{_EVERYBODY}: {'e.g. ' if is_example else ''}{verdict.reason}")
    reason = f"e.g. {verdict.reason}" if is_example else verdict.reason
    return escape(
        f"{ENGINES[verdict.engine].title} ({verdict.versions}): {reason} ({known}{source})"
    )


def _print_unquantized(plan: ModelPlan, out: Console) -> None:
    if plan.unquantized:
        names = ", ".join(layer.pattern for layer in plan.unquantized)
        out.print(f"\nnot quantized, so not planned: {escape(names)}")


def _print_remedies(remedies: list[Remedy], out: Console) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for remedy in remedies:
        helps = "[green]helps[/]" if remedy.helps else "[yellow]does not help here[/]"
        table.add_row(helps, f"[bold]{escape(remedy.title)}[/]: {escape(remedy.text)}")
    out.print(table)
