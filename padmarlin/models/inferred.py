# SPDX-License-Identifier: Apache-2.0
"""The linear layers of an unknown architecture, from the names and shapes of its tensors.

Projections whose names say so are fused as engines would (q, k, v; gate, up); a name that belongs
to a block's output says that K is cut. Heads cannot be seen in shapes: a cut of q, k and v is
taken to be possible wherever it divides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

from padmarlin.models.axes import cut_axis
from padmarlin.models.config import MAX_SIZE, refuse
from padmarlin.models.headers import Shapes
from padmarlin.models.layers import EXPERT, LAYER, Axis, LinearLayer, Part
from padmarlin.models.quantization import Quantization

# Fused by engines: the name of the whole, its role, and the parts in order.
_FUSED = (
    ("qkv_proj", "qkv", ("q_proj", "k_proj", "v_proj")),
    ("gate_up_proj", "gate_up", ("gate_proj", "up_proj")),
    ("gate_up_proj", "gate_up", ("w1", "w3")),
)
_MLP_BLOCK = re.compile(r"mlp|ffn|feed_forward|expert|w2$|fc2$|down_proj$", re.IGNORECASE)
_ROUTER = re.compile(r"(^|[._])(gate|router|shared_expert_gate)$")
_NOT_LINEAR = re.compile(r"embed|norm|wte|wpe|rotary|position|conv", re.IGNORECASE)
_OTHER_TOWER = re.compile(r"(^|\.)(visual|vision\w*|audio\w*|multi_modal_projector|mlp1)\.")


def inferred_layers(shapes: Shapes, quantization: Quantization) -> tuple[LinearLayer, ...]:
    """Every linear layer that the tensors show."""
    found: dict[tuple[str, int, int, bool], list[tuple[int, int]]] = defaultdict(list)
    for module, (k, n, quantized) in _modules(shapes, quantization).items():
        name, layer, expert = _collapsed(module)
        found[name, k, n, quantized].append((layer, expert))
    layers = [_layer(*key, places) for key, places in found.items()]
    return tuple(_fuse(layers))


def _modules(shapes: Shapes, quantization: Quantization) -> dict[str, tuple[int, int, bool]]:
    """(K, N, whether quantized) of every linear module."""
    codes = 32 // quantization.bits
    found = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        if len(shape) != 2 or 0 in shape or not module or _OTHER_TOWER.search(module):
            continue
        if kind == "qweight" and quantization.method == "awq":
            found[module] = (shape[0], shape[1] * codes, True)
        elif kind == "qweight":
            found[module] = (shape[0] * codes, shape[1], True)
        elif kind == "weight_packed":
            found[module] = (shape[1] * codes, shape[0], True)
        elif kind == "weight" and not _NOT_LINEAR.search(module.rpartition(".")[2]):
            found[module] = (shape[1], shape[0], False)
    for module, (k, n, _) in found.items():
        if max(k, n) > MAX_SIZE:
            refuse(f"layer {module!r}", f"{k} x {n}", f"sizes of at most {MAX_SIZE}")
    return found


def _collapsed(module: str) -> tuple[str, int, int]:
    """The name without its numbers: the first is the layer's, the next the expert's."""
    parts = module.split(".")
    places = [i for i, part in enumerate(parts) if part.isdecimal() and len(part) < 6]
    numbers = [int(parts[place]) for place in places[:2]]
    for place, stand_in in zip(places[:2], (LAYER, EXPERT), strict=False):
        parts[place] = stand_in
    layer, expert = [*numbers, -1, -1][:2]
    return ".".join(parts), layer, expert


def _layer(
    name: str, k: int, n: int, quantized: bool, places: list[tuple[int, int]]
) -> LinearLayer:
    last = name.rpartition(".")[2]
    axis: Axis | None = cut_axis(name)
    role = last if axis == "n" else "down" if _MLP_BLOCK.search(name) else "o"
    if _ROUTER.search(name):
        axis, role = None, "router"
    experts = len({expert for _, expert in places if expert >= 0})
    if experts:
        role = f"experts_{role}"
    layers = tuple(sorted({layer for layer, _ in places if layer >= 0}))
    # Where nothing is quantized yet, all but the head and the routers will be.
    quantized = quantized or role not in ("lm_head", "router", "output_layer")
    part = (Part(last, n),)
    return LinearLayer(name, role, k, part, axis, 1, (name,), layers, experts, quantized)


def _fuse(layers: list[LinearLayer]) -> list[LinearLayer]:
    """Puts together the parts that engines fuse, where they have one K and one place."""
    found: list[LinearLayer] = []
    taken: set[int] = set()
    by_place = defaultdict(dict)  # type: ignore[var-annotated]
    for layer in layers:
        block, _, last = layer.name.rpartition(".")
        by_place[block, layer.k, layer.layers, layer.quantized][last] = layer
    for layer in layers:
        if id(layer) in taken:
            continue
        block, _, last = layer.name.rpartition(".")
        siblings = by_place[block, layer.k, layer.layers, layer.quantized]
        fusion = next((f for f in _FUSED if last in f[2] and set(f[2]) <= set(siblings)), None)
        if fusion is None:
            found.append(layer)
            continue
        name, role, parts = fusion
        members = [siblings[part] for part in parts]
        taken |= {id(member) for member in members}
        found.append(
            replace(
                members[0],
                name=f"{block}.{name}",
                role=f"experts_{role}" if members[0].experts else role,
                parts=tuple(member.parts[0] for member in members),
                modules=tuple(member.name for member in members),
            )
        )
    return found
