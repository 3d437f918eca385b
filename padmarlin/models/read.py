# SPDX-License-Identifier: Apache-2.0
"""``read_model``: a checkpoint folder or a bare config.json, as linear layers and how each is
quantized. Tensors' data are never read."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from padmarlin.checkpoint.settings import find_settings
from padmarlin.models.config import MAX_FUSED, MAX_SIZE, read_config, refuse, text_model
from padmarlin.models.families import FAMILIES
from padmarlin.models.headers import Shapes, tensor_shapes
from padmarlin.models.inferred import inferred_layers
from padmarlin.models.layers import EXPERT, LAYER, LinearLayer
from padmarlin.models.quantization import (
    ModelQuantization,
    Quantization,
    model_quantization,
)

_CODES = ("qweight", "weight_packed")


@dataclass(frozen=True)
class Model:
    """What a model consists of, for tensor parallelism."""

    path: str
    architecture: str  # model_type of the language model
    known: bool  # False: its layers were inferred from the tensors
    hidden_size: int  # 0: not stated
    layers: tuple[tuple[LinearLayer, Quantization | None], ...]  # None: not quantized
    scheme: ModelQuantization
    notes: tuple[str, ...]


def read_model(
    path: str | os.PathLike[str],
    *,
    bits: int | None = None,
    group_size: int | None = None,
    act_order: bool | None = None,
    sym: bool | None = None,
) -> Model:
    """Reads a model's config.json, and the headers of its safetensors files where it has any.

    Args:
        path: a checkpoint folder, or a config.json.
        bits, group_size, act_order, sym: instead of what the files say, or where they say nothing:
            then 4 bits, groups of 128, no act-order, symmetric.
    """
    place = Path(os.fsdecode(path))
    if not place.exists():
        refuse("path", repr(str(place)), "an existing folder or config.json")
    folder = place if place.is_dir() else None
    config = read_config(place / "config.json" if folder else place)
    shapes = tensor_shapes(folder) if folder else {}
    stated = model_quantization(find_settings(config.function, config, folder))
    scheme = stated.with_choices(bits, group_size, act_order, sym)

    text = text_model(config)
    architecture = text.text("model_type") or config.text("model_type")
    notes = [scheme.note] if scheme.note else []
    known = architecture in FAMILIES
    if known:
        tower = config.text("model_type") if text != config else ""
        layers = FAMILIES[architecture].linear_layers(text, tower)
    elif shapes:
        layers = inferred_layers(shapes, stated.common)
        notes += _notes_of_inference(architecture, shapes)
    else:
        refuse(
            f"'model_type' in {config.source}",
            repr(architecture),
            f"one of {', '.join(sorted(FAMILIES))}",
            "or pass the folder with the safetensors files: layers are then inferred from them",
        )
    if not layers:
        refuse("path", f"no linear layers in {place}", "the folder of a language model")
    _check_sizes(layers)
    settled = _settled(layers, scheme, _Stored(shapes))
    hidden = text.size("hidden_size", default=0)
    return Model(str(place), architecture, known, hidden, settled, scheme, tuple(notes))


def _notes_of_inference(architecture: str, shapes: Shapes) -> list[str]:
    notes = [
        f"unknown architecture {architecture!r}: layers inferred from the tensors' names and "
        "shapes; where heads end cannot be seen in them"
    ]
    stacked = sum(len(shape) == 3 for shape in shapes.values())
    if stacked:
        notes.append(f"{stacked} tensors of three dimensions (stacked experts?) are not planned")
    return notes


def _check_sizes(layers: Iterable[LinearLayer]) -> None:
    for layer in layers:
        if layer.k > MAX_SIZE or layer.n > MAX_FUSED:
            got = f"{layer.k} x {layer.n}"
            refuse(f"layer {layer.pattern}", got, f"at most {MAX_SIZE} x {MAX_FUSED}")


class _Stored:
    """Which modules have packed weights in the files."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        parted = [name.rpartition(".") for name in shapes]
        self._packed = {module for module, _, kind in parted if kind in _CODES}
        self._known = self._packed | {module for module, _, kind in parted if kind == "weight"}

    def says(self, module: str, default: bool) -> bool:
        """Whether a module is quantized; the default where the files do not tell: no module in
        them is quantized, or they lack this one."""
        if self._packed and module in self._known:
            return module in self._packed
        return default

    def check_rows(self, module: str, k: int, bits: int) -> None:
        """Refuses a config whose K is not the stored one's."""
        words = -(-k * bits // 32)
        for kind, axis, expected in (("qweight", 0, (k, words)), ("weight_packed", 1, (words,))):
            shape = self._shapes.get(f"{module}.{kind}")
            if shape is not None and (len(shape) != 2 or shape[axis] not in expected):
                refuse(
                    f"tensor '{module}.{kind}'",
                    f"the shape {shape}",
                    f"K = {k} as config.json says",
                    "check that config.json belongs to these files",
                )


def _settled(
    layers: Iterable[LinearLayer], scheme: ModelQuantization, stored: _Stored
) -> tuple[tuple[LinearLayer, Quantization | None], ...]:
    """The layers with their settings, split where instances are quantized in different ways."""
    instances = [
        (layer, [(number, _first_module(layer, number)) for number in layer.layers or (0,)])
        for layer in layers
    ]
    quantized = [
        module
        for layer, modules in instances
        for _, module in modules
        if stored.says(module, layer.quantized or (layer.role == "lm_head" and scheme.lm_head))
    ]
    settings = scheme.of(quantized)
    found: list[tuple[LinearLayer, Quantization | None]] = []
    for layer, modules in instances:
        kinds: dict[Quantization | None, list[int]] = defaultdict(list)
        for number, module in modules:
            kind = settings.get(module)
            if kind is not None:
                stored.check_rows(module, layer.k, kind.bits)
            kinds[kind].append(number)
        for kind, numbers in kinds.items():
            part = replace(layer, layers=tuple(numbers)) if layer.layers else layer
            found.append((part, kind))
    return tuple(found)


def _first_module(layer: LinearLayer, number: int) -> str:
    """The parts of a fused layer are quantized alike, and so are the experts: the first stands for
    all of them."""
    return layer.modules[0].replace(LAYER, str(number)).replace(EXPERT, "0")
