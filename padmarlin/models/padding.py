# SPDX-License-Identifier: Apache-2.0
"""The remedy of padding a model's intermediate sizes before it is cut: to which size, at what cost.

One key of config.json says the size of several layers (routed and shared experts, say): they are
padded together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import lcm

from padmarlin.models.cuts import LayerCut, plan_layer
from padmarlin.models.layers import LinearLayer, Part
from padmarlin.models.quantization import Quantization
from padmarlin.models.read import Model
from padmarlin.models.remedies import Remedy, listed, padded_intermediate_size

_QWEN2_72B = (29_568, 29_696)
_OFFICIAL = (
    "; the official Qwen2 and Qwen2.5 72B GPTQ files are already padded to 29696: with those there "
    "is nothing to do"
)

Layers = list[tuple[LinearLayer, Quantization]]


def paddings(model: Model, troubles: list[LayerCut]) -> list[Remedy]:
    """A remedy per intermediate size and padding, and one per kind of layer that has none."""
    found = []
    tps_by_key: dict[str, list[int]] = defaultdict(list)
    for cut in troubles:
        if cut.layer.axis != "k" or cut.works("marlin"):
            continue
        key = _key(cut.layer)
        if key and cut.tp not in tps_by_key[key]:
            tps_by_key[key].append(cut.tp)
        elif not key:
            found.append(_not_lossless(cut.layer))
    padded = [
        _pad(model, key, target, tuple(tps))
        for key, all_tps in tps_by_key.items()
        for target, tps in _targets(_mlps(model, key), all_tps).items()
    ]
    return [*padded, *dict.fromkeys(found)]


def stored_bytes(layer: LinearLayer, kind: Quantization) -> float:
    """Of all matrices of an entry, codes and scales."""
    return layer.count * layer.k * layer.n * kind.packed_bytes_per_weight


def _key(layer: LinearLayer) -> str:
    """What says the layer's intermediate size; inferred layers are known by their names."""
    if layer.size_key:
        return layer.size_key
    block, _, _ = layer.pattern.rpartition(".")
    return block if layer.role in ("down", "experts_down") else ""


def _mlps(model: Model, key: str) -> Layers:
    """The quantized layers of which `key` says the size: gate_up, down."""

    def belongs(layer: LinearLayer) -> bool:
        inferred = not layer.size_key and layer.pattern.rpartition(".")[0] == key
        return layer.size_key == key or inferred

    return [(layer, kind) for layer, kind in model.layers if kind is not None and belongs(layer)]


def _targets(mlps: Layers, tps: list[int]) -> dict[int, list[int]]:
    """Padded sizes, and the numbers of ranks that each is for."""
    outputs = [(layer, kind) for layer, kind in mlps if layer.axis == "k"]
    size = min(layer.k // layer.size_times for layer, _ in outputs)
    groups = [kind.group_size for _, kind in outputs if kind.group_size != -1]
    group_size = lcm(*groups) if groups else -1
    targets: dict[int, list[int]] = defaultdict(list)
    for tp in sorted(tps):
        targets[padded_intermediate_size(size, group_size=group_size, tp=tp)].append(tp)
    targets.pop(size, None)  # then it is not the size that is the trouble
    return dict(sorted(targets.items()))


def _pad(model: Model, key: str, target: int, tps: tuple[int, ...]) -> Remedy:
    mlps = _mlps(model, key)
    padded = [(_padded(layer, target), kind) for layer, kind in mlps]
    added = sum(stored_bytes(*entry) for entry in padded) - sum(stored_bytes(*e) for e in mlps)
    whole = sum(stored_bytes(layer, kind) for layer, kind in model.layers if kind is not None)
    overhead = added / whole
    size = next(layer.k // layer.size_times for layer, _ in mlps if layer.axis == "k")
    share = target // tps[0]
    text = (
        f"lossless, for TP {listed(tps)}: every rank has whole groups and tiles ({share} = "
        f"{share // 128} x 128 rows at TP {tps[0]}); +{overhead:.1%} memory"
    )
    if (size, target) == _QWEN2_72B and model.architecture.startswith("qwen2"):
        text += _OFFICIAL
    cuts = [plan_layer(layer, kind, tp) for layer, kind in padded for tp in tps]
    refused = {
        engine: next((cut.verdicts[engine] for cut in cuts if not cut.works(engine)), None)
        for engine in ("marlin", "vllm")
    }
    strict, vllm = refused["marlin"], refused["vllm"]
    if strict is not None:
        text += f"; what stays: {strict.reason}"
    elif vllm is not None:
        text += f"; what stays on vLLM: {vllm.reason}"
    title = f"padmarlin pad {key} {size} -> {target}"
    return Remedy("pad", title, strict is None, text, tps, target, key, overhead)


def _padded(layer: LinearLayer, target: int) -> LinearLayer:
    size = target * layer.size_times
    if layer.axis == "k":
        return replace(layer, k=size)
    return replace(layer, parts=tuple(Part(part.name, size) for part in layer.parts))


def _not_lossless(layer: LinearLayer) -> Remedy:
    text = "its rows are attention heads, and zeros there are not lossless: it is left as it is"
    return Remedy("pad", f"pad {layer.pattern}", False, text)
