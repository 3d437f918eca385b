# SPDX-License-Identifier: Apache-2.0
"""PNG plots of rows: against M, times and fractions of the limit; ratios to peers.

Needs matplotlib.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import geometric_mean
from benchmarks.rows import Row


def save_plots(rows: Sequence[Row], folder: Path, stem: str) -> list[Path]:
    """For each model that has several M, times and fractions of the limit against M; for all of
    them, ratios to peers. Nothing for nothing."""
    saved = []
    models = dict.fromkeys(row.model for row in rows if row.us is not None)
    for model in models:
        of_model = [row for row in rows if row.model == model and row.us is not None]
        if len({row.m for row in of_model}) > 1:
            name = f"{stem}_{re.sub(r'[^a-z0-9]+', '-', model)}"
            for kind in ("us", "limit"):
                saved.append(folder / f"{name}_{kind}.png")
                save_against_m(of_model, saved[-1], of_limit=kind == "limit")
    if any(row.ratio is not None for row in rows):
        saved.append(folder / f"{stem}_ratios.png")
        save_ratios(rows, saved[-1])
    return saved


def _figure(width: float, height: float) -> Any:
    # Not pyplot: it keeps figures, and may want a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


LIMIT, OWN = "limit", "padmarlin"
Curves = dict[str, dict[int, float]]  # microseconds by M, for padmarlin, its peers and the limit


def _panels(rows: Sequence[Row]) -> dict[str, Curves]:
    """The curves of each part and coding."""
    panels: dict[str, Curves] = {}
    for row in rows:
        assert row.us is not None
        panel = panels.setdefault(re.sub(r" M=\d+", "", row.name), {LIMIT: {}, OWN: {}})
        panel[LIMIT][row.m] = row.us_limit
        panel[OWN][row.m] = row.us
        if row.peer and row.peer_us is not None:
            panel.setdefault(row.peer, {})[row.m] = row.peer_us
    return panels


def save_against_m(rows: Sequence[Row], path: Path, *, of_limit: bool) -> None:
    """A panel per part: times and the limit below them, or what fraction of the limit each gets."""
    curves = _panels(rows)
    names = list(dict.fromkeys(name for panel in curves.values() for name in panel))
    columns = min(4, len(curves))
    height = -(-len(curves) // columns)
    figure = _figure(4.5 * columns, 3.4 * height + 0.6)
    panels = list(figure.subplots(height, columns, squeeze=False).flat)
    for panel in panels[len(curves) :]:
        panel.remove()
    shown: dict[str, Any] = {}
    for panel, (title, by_name) in zip(panels, curves.items(), strict=False):
        for name, times in by_name.items():
            ms = sorted(times)
            values = [by_name[LIMIT][m] / times[m] if of_limit else times[m] for m in ms]
            (shown[name],) = panel.plot(ms, values, **_style(name, names))
        panel.set_title(title, fontsize=8)
        panel.set_xscale("log", base=2)
        if of_limit:
            panel.set_ylim(bottom=0)
        else:
            panel.set_yscale("log")
        panel.set_xlabel("M")
        panel.set_ylabel("fraction of the limit" if of_limit else "us")
        panel.grid(alpha=0.3)
    figure.legend(
        shown.values(), shown.keys(), fontsize=8, loc="outside lower center", ncols=len(shown)
    )
    figure.suptitle(_origin(rows[0]), fontsize=9)
    figure.savefig(path, dpi=110)


def _style(name: str, names: list[str]) -> dict[str, Any]:
    """The same in every panel."""
    if name == LIMIT:
        return {"color": "k", "linestyle": "--"}
    if name == OWN:
        return {"color": "tab:blue", "marker": "o", "linewidth": 2}
    return {"color": f"C{names.index(name) - 1}", "marker": ".", "alpha": 0.8}


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
