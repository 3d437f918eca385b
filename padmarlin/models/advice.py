# SPDX-License-Identifier: Apache-2.0
"""The remedies for a model's plan in words, the cheapest first, folklore included: what helps, what
does not, and why. Every claim is computed from the plan's own cuts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from padmarlin.engines import ENGINES, Cut, judge
from padmarlin.models.cuts import LayerCut, plan_layer
from padmarlin.models.layers import LinearLayer
from padmarlin.models.quantization import Quantization
from padmarlin.models.read import Model
from padmarlin.models.remedies import dividing_group_size, padded_intermediate_size

_TP_TRIED = (1, 2, 3, 4, 5, 6, 7, 8, 16)
_MLP_OUTPUTS = ("down", "experts_down", "shared_down")
_QWEN2_72B = 29_568


@dataclass(frozen=True)
class Remedy:
    """Something to do, or that people say one should do."""

    kind: str  # none, run, pad, group_size, tp, folklore
    title: str
    helps: bool
    text: str
    tp: tuple[int, ...] = ()  # at which tensor-parallel sizes it helps
    size: int = 0  # pad: to this size; group_size: the group size
    overhead: float = 0.0  # more memory for the quantized layers of the model, as a fraction

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "title": self.title,
            "helps": self.helps,
            "text": self.text,
            "tp": list(self.tp),
            "size": self.size,
            "overhead": self.overhead,
        }


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
        *_pad(model, troubles),
        *_group_size(troubles),
        _tp(model),
        *_folklore(model, troubles),
    )


def _run(tps: tuple[int, ...], all_cuts: tuple[LayerCut, ...]) -> Remedy:
    sizes = tuple(tp for tp in tps if not any(c.problem for c in all_cuts if c.tp == tp))
    overheads = []
    for tp in sizes:
        cuts = [cut for cut in all_cuts if cut.tp == tp]
        stored = sum(
            _bytes(cut.layer, cut.quantization) * (1 + cut.padmarlin.overhead)
            for cut in cuts
            if cut.padmarlin
        )
        whole = sum(_bytes(cut.layer, cut.quantization) for cut in cuts)
        bound = "" if all(cut.padmarlin and cut.padmarlin.exact for cut in cuts) else "at most "
        overheads.append(f"{bound}+{stored / whole - 1:.1%} at TP {tp}")
    text = "exact at every cut, files as they are; memory for padding: " + ", ".join(overheads)
    if any(cut.layer.experts for cut in all_cuts):
        text += "; experts expert by expert: there is no fused MoE kernel yet"
    return Remedy("run", "run on padmarlin as it is", bool(sizes), text, sizes)


def _pad(model: Model, troubles: list[LayerCut]) -> list[Remedy]:
    found = []
    sizes = _sizes_that_matter(troubles)
    for layer, kind in [entry for entry in model.layers if entry[0] in sizes]:
        assert kind is not None
        if layer.role not in _MLP_OUTPUTS:
            text = f"{layer.pattern}: K is attention heads; zeros there are not lossless, so " + (
                "pad leaves it"
            )
            found.append(Remedy("pad", f"pad {layer.role}", False, text))
            continue
        by_target: dict[int, list[int]] = defaultdict(list)
        for tp in sizes[layer]:
            target = padded_intermediate_size(layer.k, group_size=kind.group_size, tp=tp)
            by_target[target].append(tp)
        found += [
            _pad_to(model, layer, kind, target, tuple(tps))
            for target, tps in sorted(by_target.items())
            if target > layer.k
        ]
    return found


def _sizes_that_matter(troubles: list[LayerCut]) -> dict[LinearLayer, list[int]]:
    """The row-parallel layers whose size is the trouble, and at which TP."""
    sizes: dict[LinearLayer, list[int]] = defaultdict(list)
    for cut in troubles:
        if cut.layer.axis == "k" and not cut.works("marlin"):
            sizes[cut.layer].append(cut.tp)
    return sizes


def _pad_to(
    model: Model, layer: LinearLayer, kind: Quantization, target: int, tp: tuple[int, ...]
) -> Remedy:
    # down_proj's rows, and as many columns of gate and of up.
    block = layer.name.rpartition(".")[0]
    siblings = [
        (other, own)
        for other, own in model.layers
        if own and other.layers == layer.layers and other.name.rpartition(".")[0] == block
    ]
    added = sum(_bytes(other, own) for other, own in siblings) * (target / layer.k - 1)
    whole = sum(_bytes(other, own) for other, own in model.layers if own)
    overhead = added / whole
    least = min(tp)
    text = (
        f"{layer.pattern}: {layer.k} -> {target}, lossless, for TP {_listed(tp)}: every rank whole "
        f"groups and tiles ({target // least} = {_in_tiles(target // least)} at TP {least}); "
        f"+{overhead:.1%} memory"
    )
    if layer.k == _QWEN2_72B and model.architecture.startswith("qwen2"):
        text += (
            "; the official Qwen2 and Qwen2.5 72B GPTQ files are already padded to 29696: with "
            "those there is nothing to do"
        )
    padded = _padded_cuts(layer, kind, target, tp)
    helps = all(cut.works("marlin") for cut in padded)
    if not helps:
        text += f"; N = {layer.n} stays what strict engines refuse"
    elif not all(cut.works("vllm") for cut in padded):
        text += f"; vLLM's other reason stays: {judge('vllm', padded[-1].cut).reason}"
    title = f"padmarlin pad to intermediate size {target}"
    return Remedy("pad", title, helps, text, tp, target, overhead)


@dataclass(frozen=True)
class _Judged:
    """A cut that is not in the plan."""

    cut: Cut

    def works(self, engine: str) -> bool:
        return judge(engine, self.cut).works


def _padded_cuts(
    layer: LinearLayer, kind: Quantization, target: int, tps: Iterable[int]
) -> list[_Judged]:
    return [
        _Judged(
            Cut.of(
                target,
                layer.n,
                tp=tp,
                bits=kind.bits,
                group_size=kind.group_size,
                act_order=kind.act_order,
                sym=kind.sym,
                method=kind.method,
                experts=layer.experts > 0,
            )
        )
        for tp in tps
    ]


def _group_size(troubles: list[LayerCut]) -> list[Remedy]:
    split = [cut for cut in troubles if not cut.cut.whole_groups]
    if not split:
        return []
    by_group: dict[int, list[int]] = defaultdict(list)
    for tp in dict.fromkeys(cut.tp for cut in split):
        by_group[dividing_group_size(cut.k for cut in split if cut.tp == tp)].append(tp)
    found = []
    for group_size, tps in by_group.items():
        changed = [
            _Judged(replace(cut.cut, group_size=group_size)) for cut in split if cut.tp in tps
        ]
        takers = [
            ENGINES[engine].title
            for engine in ENGINES
            if all(judged.works(engine) for judged in changed)
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
                f"{none}whole on every rank at TP {_listed(tps)}; {who}; {accuracy}",
                tuple(tps),
                group_size,
            )
        )
    return found


def _tp(model: Model) -> Remedy:
    working = {engine: working_tp(model, engine) for engine in ENGINES}
    lines = [
        f"{ENGINES[engine].title}: TP {_listed(sizes)}"
        if sizes
        else f"{ENGINES[engine].title}: none"
        for engine, sizes in working.items()
    ]
    text = f"every layer fits, of TP {_listed(_TP_TRIED)}, on {'; '.join(lines)}"
    sizes = working["vllm"]
    return Remedy("tp", "choose a tensor-parallel size that works", bool(sizes), text, sizes)


def working_tp(model: Model, engine: str) -> tuple[int, ...]:
    """Of the usual tensor-parallel sizes, those at which `engine` takes every quantized layer."""
    quantized = [(layer, kind) for layer, kind in model.layers if kind is not None]
    return tuple(
        tp
        for tp in _TP_TRIED
        if all(plan_layer(layer, kind, tp).works(engine) for layer, kind in quantized)
    )


def _folklore(model: Model, troubles: list[LayerCut]) -> list[Remedy]:
    split = [cut for cut in troubles if not cut.cut.whole_groups]
    failing = [cut for cut in troubles if not cut.works("vllm")]
    gptq = model.scheme.common.method == "gptq"
    smaller = tuple(tp for tp in working_tp(model, "vllm") if tp < max(cut.tp for cut in troubles))

    def folklore(title: str, helps: bool, text: str, tp: tuple[int, ...] = ()) -> Remedy:
        return Remedy("folklore", title, helps, text, tp)

    eight = [_Judged(replace(cut.cut, bits=8)) for cut in failing]
    int8_helps = bool(failing) and all(judged.works("vllm") for judged in eight)
    tiles_only = not split and not any(
        cut.cut.reorders or not cut.quantization.sym for cut in troubles
    )
    one = (
        f"{split[0].k} rows are {split[0].cut.groups} groups of {_group(split[0])}" if split else ""
    )
    found = [
        folklore(
            "--quantization gptq",
            False,
            "gptq, gptq_marlin and auto_gptq are one and the same since vLLM 0.22.1; the cut stays"
            if gptq
            else "the files are not GPTQ",
        ),
        folklore(
            "a smaller tensor-parallel size",
            bool(smaller),
            f"vLLM takes every layer at TP {_listed(smaller)}, if the model fits into so few GPUs"
            if smaller
            else "vLLM does not take every layer at any smaller size",
            smaller,
        ),
        folklore(
            "pipeline parallelism instead",
            1 in smaller,
            "no matrix is cut; GPUs take turns, so a single request gains no speed"
            if 1 in smaller
            else "vLLM does not take every layer even uncut",
        ),
        folklore(
            "--enforce-eager",
            False,
            "it turns off CUDA graphs; the cut is made and checked when weights are loaded",
        ),
        folklore(
            "INT8 instead of INT4",
            int8_helps,
            "vLLM takes the layers with 8 bits"
            if int8_helps
            else (f"{one}, whatever the bits" if split else "the reason is not the bits"),
        ),
        folklore(
            "pad each rank to a multiple of 128",
            tiles_only,
            "vLLM does so itself since 0.24.0, copying activations and outputs at every call"
            if tiles_only
            else (
                f"{one}: zeros after a cut inside a group leave it cut; pad before cutting"
                if split
                else "the reason is not the size"
            ),
        ),
    ]
    if split:
        text = "it throws weights away: what is left is another model"
        found.append(folklore("cut the surplus rows off", False, text))
    return found


def _group(cut: LayerCut) -> int:
    return cut.quantization.group_size


def _bytes(layer: LinearLayer, kind: Quantization) -> float:
    return layer.count * layer.k * layer.n * kind.packed_bytes_per_weight


def _in_tiles(rows: int) -> str:
    return f"{rows // 128} x 128"


def _listed(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, sizes))
