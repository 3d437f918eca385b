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
        *_group_size(cuts),
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


def _group_size(all_cuts: tuple[LayerCut, ...]) -> list[Remedy]:
    """Other groups, where some are cut or short: of which every layer's ranks have whole ones."""
    cuts = [cut for cut in all_cuts if not cut.problem]
    split = [cut for cut in cuts if not cut.cut.whole_groups]
    by_group: dict[int, list[int]] = defaultdict(list)
    for tp in dict.fromkeys(cut.tp for cut in split):
        by_group[dividing_group_size(cut.k for cut in cuts if cut.tp == tp)].append(tp)
    present = split[0].quantization.group_size if split else -1
    return [
        _requantize([cut for cut in cuts if cut.tp in tps], group_size, present, tuple(tps))
        for group_size, tps in by_group.items()
    ]


def _requantize(
    cuts: list[LayerCut], group_size: int, present: int, tps: tuple[int, ...]
) -> Remedy:
    changed = [replace(cut.cut, group_size=group_size) for cut in cuts]
    takers = [
        engine.title
        for name, engine in ENGINES.items()
        if all(judge(name, cut).works for cut in changed)
    ]
    who = f"taken by {', '.join(takers)}" if takers else "still taken by none of the engines"
    text = f"whole on every rank at TP {listed(tps)}; {who}"
    if group_size == -1:
        title = "requantize with one group per column (-1)"
        text = f"no Marlin group size divides the ranks' rows; {text}; less accurate"
    else:
        title = f"requantize with groups of {group_size}"
        text += "; more scales to store" if group_size < present else "; less accurate"
    return Remedy("group_size", title, bool(takers), text, tps, group_size)


def _tp(model: Model) -> Remedy:
    working = {engine: working_tp(model, engine) for engine in ENGINES}
    lines = [f"{ENGINES[engine].title} {listed(sizes)}" for engine, sizes in working.items()]
    text = f"of {listed(TP_TRIED)}, every layer fits at: {'; '.join(lines)}"
    sizes = working["vllm"]
    return Remedy("tp", "choose a tensor-parallel size that works", bool(sizes), text, sizes)
