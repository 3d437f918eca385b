# SPDX-License-Identifier: Apache-2.0
"""The table as Markdown, to paste into an issue or a model card."""

from __future__ import annotations

from padmarlin.tradeoff.table import MS, Entry, TradeoffTable

_HEADINGS = ("layer", "K x N per rank", "bits", "group", "error", "MB per rank", "padding")


def to_markdown(table: TradeoffTable) -> str:
    """One table with the layers, then the whole model, then what was assumed."""
    headings = [*_HEADINGS, *(f"M={m}, us" for m in MS), "straddles"]
    rows = [_row(entry) for entry in table.entries]
    for total in table.totals:
        choice = total.choice
        straddles = f"{len(total.straddling)} layer(s)" if total.straddling else "no"
        size = f"{total.rank_bytes / 1e6:.1f}"
        rows.append(
            ["**all**", "", str(choice.bits), str(choice.group_size), f"{total.error:.2%}", size]
            + [""] * (1 + len(MS))
            + [straddles]
        )
    gpu = table.gpu
    return "\n".join(
        [
            f"{_escaped(table.model.path)}, TP {table.tp}. Weights: {table.sample}.",
            "",
            _line(headings),
            _line(["---"] * len(headings)),
            *map(_line, rows),
            "",
            f"{table.conclusion()}.",
            "",
            f"Times are limits, not measurements: {gpu.title}, "
            f"{gpu.bytes_per_second / 1e12:.3g} TB/s, {gpu.flops / 1e12:.4g} TFLOP/s "
            f"({gpu.basis}: {gpu.source}).",
            *(f"\nNote: {_escaped(note)}." for note in table.notes),
        ]
    )


def _row(entry: Entry) -> list[str]:
    choice = entry.choice
    first = [f"`{_escaped(entry.layer.pattern)}`"]
    error = f"{entry.error:.2%}"
    if entry.problem:
        cells = ["impossible", str(choice.bits), str(choice.group_size), error]
        return first + cells + ["-"] * (3 + len(MS))
    return [
        *first,
        f"{entry.k} x {entry.n}",
        str(choice.bits),
        str(choice.group_size),
        error,
        f"{entry.rank_bytes / 1e6:.1f}",
        f"+{entry.padding:.1%}",
        *(f"{entry.limits_us[m]:.1f}" for m in MS),
        "yes" if entry.straddles else "no",
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
