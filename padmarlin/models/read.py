# SPDX-License-Identifier: Apache-2.0
"""``read_model``: a checkpoint folder or a bare config.json, as linear layers and how each is
quantized. Tensors' data are never read."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from padmarlin.models.config import MAX_FUSED, MAX_SIZE, Config, read_config, refuse, text_model
from padmarlin.models.families import FAMILIES
from padmarlin.models.headers import Shapes, tensor_shapes
from padmarlin.models.inferred import inferred_layers
from padmarlin.models.layers import EXPERT, LAYER, LinearLayer
from padmarlin.models.quantization import Quantization, Scheme, read_scheme

_CODES = ("qweight", "weight_packed")


@dataclass(frozen=True)
class Model:
    """What a model consists of, for tensor parallelism."""

    path: str
    architecture: str  # model_type of the language model
    known: bool  # False: its layers were inferred from the tensors
    hidden_size: int  # 0: not stated
    layers: tuple[tuple[LinearLayer, Quantization | None], ...]  # None: not quantized
    scheme: Scheme
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
    stated = read_scheme(_quantization_config(config, folder))
    scheme = stated.with_choices(bits, group_size, act_order, sym)

    text = text_model(config)
    architecture = text.text("model_type") or config.text("model_type")
    family = FAMILIES.get(architecture)
    notes = [scheme.note] if scheme.note else []
    if family is not None:
        layers = family.linear_layers(text, config.text("model_type") if text != config else "")
    elif shapes:
        layers = inferred_layers(shapes, stated.common)
        notes.append(
            f"unknown architecture {architecture!r}: layers inferred from the tensors' names and "
            "shapes; where heads end cannot be seen in them"
        )
        stacked = sum(len(shape) == 3 for shape in shapes.values())
        if stacked:
            notes.append(
                f"{stacked} tensors of three dimensions (stacked experts?) are not planned"
            )
    else:
        refuse(
            f"'model_type' in {config.source}",
            repr(architecture),
            f"one of {', '.join(sorted(FAMILIES))}",
            "or pass the folder with the safetensors files: layers are then inferred from them",
        )
    if not layers:
        refuse("path", f"no linear layers in {place}", "the folder of a language model")
    for layer in layers:
        if layer.k > MAX_SIZE or layer.n > MAX_FUSED:
            got = f"{layer.k} x {layer.n}"
            refuse(f"layer {layer.pattern}", got, f"at most {MAX_SIZE} x {MAX_FUSED}")
    stored = _Stored(shapes)
    settled = [entry for layer in layers for entry in _settle(layer, scheme, stored)]
    hidden = text.size("hidden_size") if text.has("hidden_size") else 0
    return Model(
        str(place), architecture, family is not None, hidden, tuple(settled), scheme, tuple(notes)
    )


def _quantization_config(config: Config, folder: Path | None) -> Config | None:
    for owner in (config, text_model(config)):
        if owner.has("quantization_config"):
            return replace(owner.part("quantization_config"), source=config.source)
        if owner.has("compression_config"):
            return replace(owner.part("compression_config"), source=config.source)
    if folder and (folder / "quantize_config.json").exists():
        return read_config(folder / "quantize_config.json")
    return None


class _Stored:
    """Which modules have packed weights in the files."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._packed = {
            name.rpartition(".")[0] for name in shapes if name.rpartition(".")[2] in _CODES
        }
        self._plain = {name.rpartition(".")[0] for name in shapes if name.endswith(".weight")}

    def says(self, module: str) -> bool | None:
        """Whether a module is quantized; None: the files do not tell, or nothing in them is."""
        if not self._packed:
            return None
        if module in self._packed:
            return True
        return False if module in self._plain else None

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


def _settle(
    layer: LinearLayer, scheme: Scheme, stored: _Stored
) -> list[tuple[LinearLayer, Quantization | None]]:
    """The layer, split where its instances are quantized in different ways."""
    kinds: dict[Quantization | None, list[int]] = defaultdict(list)
    for number in layer.layers or (0,):
        kinds[_quantization(layer, number, scheme, stored)].append(number)
    return [
        (replace(layer, layers=tuple(numbers)) if layer.layers else layer, kind)
        for kind, numbers in kinds.items()
    ]


def _quantization(
    layer: LinearLayer, number: int, scheme: Scheme, stored: _Stored
) -> Quantization | None:
    # The parts of a fused layer are quantized alike, and so are the experts: the first stands for
    # all of them.
    module = layer.modules[0].replace(LAYER, str(number)).replace(EXPERT, "0")
    says = stored.says(module)
    if says is False:
        return None
    wanted = layer.quantized or (layer.role == "lm_head" and scheme.lm_head)
    kind = scheme.of(module) if says or wanted else None
    if kind is not None:
        stored.check_rows(module, layer.k, kind.bits)
    return kind
