# SPDX-License-Identifier: Apache-2.0
"""The remedies for a model's plan in words, the cheapest first, folklore included: what helps, what
does not, and why. Every claim is computed from the plan's own cuts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from padmarlin.engines import ENGINES, judge
from padmarlin.models.cuts import LayerCut
from padmarlin.models.folklore import TP_TRIED, folklore, working_tp
from padmarlin.models.padding import paddings, stored_bytes
from padmarlin.models.read import Model
from padmarlin.models.remedies import Remedy, dividing_group_size, listed


def advise(model: Model, tp: tuple[int, ...], cuts: tuple[LayerCut, ...]) -> tuple[Remedy, ...]:
    """All remedies that bear on the troubles of a plan's cuts; one that says so if there are
    none."""
    troubles = [cut for cut in cuts if not cut.problem and not all(map(cut.works, ENGINES))]
    if not troubles and not any(cut.problem for cut in cuts):
        text = "every engine takes every layer at these tensor-parallel sizes"
        return (Remedy("none", "nothing to do", True, text, tp),)
    if not troubles:
        return (_tp(model),)
    return (
        _run(tp, cuts),
        *paddings(model, troubles),
        *_group_size(troubles),
        _tp(model),
        *folklore(model, troubles),
    )


def _run(tps: tuple[int, ...], all_cuts: tuple[LayerCut, ...]) -> Remedy:
    sizes = tuple(tp for tp in tps if not any(c.problem for c in all_cuts if c.tp == tp))
    overheads = []
    for tp in sizes:
        cuts = [cut for cut in all_cuts if cut.tp == tp]
        stored = sum(
            stored_bytes(cut.layer, cut.quantization) * (1 + cut.padmarlin.overhead)
            for cut in cuts
            if cut.padmarlin
        )
        whole = sum(stored_bytes(cut.layer, cut.quantization) for cut in cuts)
        bound = "" if all(cut.padmarlin and cut.padmarlin.exact for cut in cuts) else "at most "
        overheads.append(f"{bound}+{stored / whole - 1:.1%} at TP {tp}")
    text = "exact at every cut, files as they are; memory for padding: " + ", ".join(overheads)
    if any(cut.layer.experts for cut in all_cuts):
        text += "; experts expert by expert: there is no fused MoE kernel yet"
    return Remedy("run", "run on padmarlin as it is", bool(sizes), text, sizes)


def _group_size(troubles: list[LayerCut]) -> list[Remedy]:
    split = [cut for cut in troubles if not cut.cut.whole_groups]
    if not split:
        return []
    by_group: dict[int, list[int]] = defaultdict(list)
    for tp in dict.fromkeys(cut.tp for cut in split):
        by_group[dividing_group_size(cut.k for cut in split if cut.tp == tp)].append(tp)
    found = []
    for group_size, tps in by_group.items():
        changed = [replace(cut.cut, group_size=group_size) for cut in split if cut.tp in tps]
        takers = [
            ENGINES[engine].title
            for engine in ENGINES
            if all(judge(engine, cut).works for cut in changed)
        ]
        name = "one group per column (-1)" if group_size == -1 else f"groups of {group_size}"
        who = f"taken by {', '.join(takers)}" if takers else "still taken by none of the engines"
        none = "no Marlin group size divides the ranks' rows; " if group_size == -1 else ""
        accuracy = "coarser" if group_size == -1 else "finer, more scales to store"
        found.append(
            Remedy(
                "group_size",
                f"requantize with {name}",
                bool(takers),
                f"{none}whole on every rank at TP {listed(tps)}; {who}; {accuracy}",
                tuple(tps),
                group_size,
            )
        )
    return found


def _tp(model: Model) -> Remedy:
    working = {engine: working_tp(model, engine) for engine in ENGINES}
    lines = [f"{ENGINES[engine].title} {listed(sizes)}" for engine, sizes in working.items()]
    text = f"of {listed(TP_TRIED)}, every layer fits at: {'; '.join(lines)}"
    sizes = working["vllm"]
    return Remedy("tp", "choose a tensor-parallel size that works", bool(sizes), text, sizes)
