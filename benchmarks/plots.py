# SPDX-License-Identifier: Apache-2.0
"""PNG plots of rows: time against M with its limit, and ratios to peers. Needs matplotlib."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import geometric_mean
from benchmarks.rows import Row


def save_plots(rows: Sequence[Row], folder: Path, stem: str) -> list[Path]:
    """One file for time against M of each model, one for the ratios. Nothing for nothing."""
    saved = []
    models = dict.fromkeys(row.model for row in rows if row.us is not None)
    for model in models:
        of_model = [row for row in rows if row.model == model and row.us is not None]
        if len({row.m for row in of_model}) > 1:
            path = folder / f"{stem}_{re.sub(r'[^a-z0-9]+', '-', model)}_m.png"
            save_against_m(of_model, path)
            saved.append(path)
    if any(row.ratio is not None for row in rows):
        path = folder / f"{stem}_ratios.png"
        save_ratios(rows, path)
        saved.append(path)
    return saved


def _figure(width: float, height: float) -> Any:
    # Not pyplot: it keeps figures, and may want a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each part and coding, by M, one row for each."""
    lines: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        lines[re.sub(r" M=\d+", "", row.name)][row.m] = row
    return {name: [of[m] for m in sorted(of)] for name, of in lines.items()}


def save_against_m(rows: Sequence[Row], path: Path) -> None:
    """A panel per part: padmarlin, every peer that ran, and the limit below which nothing is."""
    lines = _lines(rows)
    columns = min(4, len(lines))
    height = -(-len(lines) // columns)
    figure = _figure(4.5 * columns, 3.4 * height)
    panels = list(figure.subplots(height, columns, squeeze=False).flat)
    for panel in panels[len(lines) :]:
        panel.remove()
    for panel, (name, of) in zip(panels, lines.items(), strict=False):
        ms = [row.m for row in of]
        panel.plot(ms, [row.us_limit for row in of], "k--", label="limit")
        panel.plot(ms, [row.us for row in of], "o-", label="padmarlin", linewidth=2)
        wanted = {row.case_key for row in of}
        peers: dict[str, dict[int, float]] = defaultdict(dict)
        for row in rows:
            if row.case_key in wanted and row.peer and row.peer_us is not None:
                peers[row.peer][row.m] = row.peer_us
        for peer, times in peers.items():
            panel.plot(
                sorted(times), [times[m] for m in sorted(times)], ".-", label=peer, alpha=0.7
            )
        panel.set_title(name, fontsize=8)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel("M")
        panel.set_ylabel("us")
        panel.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.suptitle(_origin(rows[0]), fontsize=9)
    figure.savefig(path, dpi=110)


def save_ratios(rows: Sequence[Row], path: Path) -> None:
    """A bar per peer and M: the geometric mean over all cases, the whisker from worst to best."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.ratio is not None and row.peer:
            found[row.peer][row.m].append(row.ratio)
    ms = sorted({m for of in found.values() for m in of})
    figure = _figure(max(6.0, 0.25 * len(ms) * len(found) + 2), 4.5)
    axes = figure.subplots()
    width = 0.8 / len(found)
    for index, (peer, of) in enumerate(found.items()):
        places = [ms.index(m) + (index - (len(found) - 1) / 2) * width for m in of]
        means = [geometric_mean(values) for values in of.values()]
        below = [mean - min(of[m]) for mean, m in zip(means, of, strict=True)]
        above = [max(of[m]) - mean for mean, m in zip(means, of, strict=True)]
        axes.bar(places, means, width, yerr=(below, above), label=peer, error_kw={"lw": 0.7})
    axes.axhline(1, color="k", linewidth=1)
    axes.set_xticks(range(len(ms)), [f"M={m}" for m in ms])
    axes.set_ylabel("time of the peer / time of padmarlin")
    axes.set_title(_origin(rows[0]), fontsize=9)
    axes.legend(fontsize=7)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)


def _origin(row: Row) -> str:
    return f"{row.gpu}, driver {row.driver}, torch {row.torch}, commit {row.commit}, {row.date}"
