# SPDX-License-Identifier: Apache-2.0
"""Error against bytes, a point per choice, as a PNG file. Needs matplotlib: the extra ``plot``."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from padmarlin.errors import refusal
from padmarlin.tradeoff.table import TradeoffTable


def check_plot(path: str | os.PathLike[str]) -> Path:
    """Refuses a file that could not be written, before anything is computed for it."""
    file = Path(path)
    if file.suffix.lower() != ".png":
        raise ValueError(refusal("tradeoff", "plot", repr(str(file)), "a name that ends in .png"))
    if not file.parent.is_dir() or file.is_dir():
        raise ValueError(
            refusal("tradeoff", "plot", repr(str(file)), "a file in an existing folder")
        )
    if importlib.util.find_spec("matplotlib") is None:
        remedy = "pip install 'padmarlin[plot]'"
        raise ValueError(refusal("tradeoff", "plot", "no matplotlib", "it installed", remedy))
    return file


def save_plot(table: TradeoffTable, path: str | os.PathLike[str]) -> None:
    """Writes the plot of the whole model; an existing file is replaced."""
    file = check_plot(path)
    # Not pyplot: it keeps figures, and may want a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for straddles, label, colour, marker in (
        (False, "whole groups on every rank", "tab:blue", "o"),
        (True, f"straddles at TP {table.tp}", "tab:red", "X"),
    ):
        totals = [total for total in table.totals if bool(total.straddling) == straddles]
        if totals:
            sizes = [total.rank_bytes / 1e9 for total in totals]
            errors = [total.error * 100 for total in totals]
            axes.scatter(sizes, errors, c=colour, marker=marker, s=60, label=label)
    for total in table.totals:
        axes.annotate(
            str(total.choice),
            (total.rank_bytes / 1e9, total.error * 100),
            xytext=(2, 7),
            textcoords="offset points",
            fontsize=8,
            rotation=60,  # choices of the same bits lie beside each other
        )
    axes.set_xlabel("GB per rank, codes and scales")
    axes.set_ylabel("round-to-nearest error, %")
    axes.margins(x=0.12)
    axes.set_ylim(0, max(total.error for total in table.totals) * 150 + 0.1)
    axes.grid(alpha=0.3)
    axes.legend()
    name = table.model.architecture or Path(table.model.path).name
    weights = "random weights" if table.sample.source == "random" else "its own weights"
    axes.set_title(f"{name}, TP {table.tp}, {weights}")
    try:
        figure.savefig(file, dpi=120, format="png")
    except OSError as error:
        raise ValueError(refusal("tradeoff", "plot", error, "a file that can be written")) from None
