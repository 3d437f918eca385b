# SPDX-License-Identifier: Apache-2.0
"""The quantized layers of a checkpoint's files: what their headers say, and which of the model's
modules each belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from safetensors import safe_open

from padmarlin.errors import refusal

CODES = ("qweight", "weight_packed")
"""The tensor that is there wherever a layer is quantized."""

_MARKS = (*CODES, "qzeros", "weight_shape")
"""Those that no layer has which is not quantized: one without codes is damaged, not plain."""


class Header(NamedTuple):
    """A tensor's dtype, in safetensors' words, and its shape."""

    dtype: str
    shape: tuple[int, ...]


Layer = Mapping[str, Header]  # by the last part of the tensors' names


def stored_layers(files: Iterable[str]) -> dict[str, Layer]:
    """All layers by their names in the checkpoint."""
    layers: dict[str, dict[str, Header]] = defaultdict(dict)
    for file in files:
        if not str(file).endswith(".safetensors"):
            remedy = "convert the checkpoint to safetensors"
            message = refusal("from_pretrained", "checkpoint", file, "safetensors files", remedy)
            raise ValueError(message)
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                layer, _, suffix = name.rpartition(".")
                view = tensors.get_slice(name)
                layers[layer][suffix] = Header(str(view.get_dtype()), tuple(view.get_shape()))
    return dict(layers)


def quantized_layers(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    return {name: layer for name, layer in layers.items() if any(mark in layer for mark in _MARKS)}


def modules_of(layers: Iterable[str], modules: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """(module -> layer, layers without a module).

    Their names are the same, or begin differently: Transformers renames checkpoints of older
    versions, and a model may be loaded without its head or as a part of another. So a layer belongs
    to the module that shares most of the last parts of its name, among these at least the block's
    number, if the name has one. A wrong guess would not load: Transformers finds tensors by names.
    """
    known = set(modules)
    by_end: dict[str, list[str]] = defaultdict(list)
    for module in known:
        by_end[module.rpartition(".")[2]].append(module)
    found: dict[str, str] = {}
    without = []
    for layer in layers:
        candidates = [layer] if layer in known else by_end[layer.rpartition(".")[2]]
        closest = _closest(layer, candidates)
        if closest is None or closest in found:
            without.append(layer)
        else:
            found[closest] = layer
    return found, without


def modules_lacking(
    layers: Mapping[str, Layer], without: Iterable[str], modules: Iterable[str]
) -> list[str]:
    """Those of `modules` of which the files have nothing, beside layers `without` a module: what
    the model has as one matrix and the files as two, or the other way round. Transformers would
    fill them with random numbers. Beside each other: in the same part of a block."""
    plain = {_in_block(name) for name, layer in layers.items() if "weight" in layer}
    parents = {_in_block(name).rpartition(".")[0] for name in without} - {""}
    return [
        module
        for module in modules
        if _in_block(module).rpartition(".")[0] in parents and _in_block(module) not in plain
    ]


def _in_block(name: str) -> str:
    """From the block's number on, as what is before it may be renamed; empty outside of blocks."""
    parts = name.split(".")
    numbered = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbered[0] :]) if numbered else ""


def _closest(layer: str, modules: list[str]) -> str | None:
    shared = sorted(((_shared_parts(layer, module), module) for module in modules), reverse=True)
    if not shared or (len(shared) > 1 and shared[0][0] == shared[1][0]):
        return None
    most, module = shared[0]
    numbered = [index for index, part in enumerate(layer.split(".")) if part.isdigit()]
    needed = len(layer.split(".")) - numbered[0] if numbered else 1
    return module if most >= needed else None


def _shared_parts(a: str, b: str) -> int:
    count = 0
    for x, y in zip(reversed(a.split(".")), reversed(b.split(".")), strict=False):
        if x != y:
            break
        count += 1
    return count
