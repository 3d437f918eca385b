# SPDX-License-Identifier: Apache-2.0
"""The MLPs of a checkpoint: which tensors meet at which intermediate size, and which key of
config.json says it. All MLPs under one key are padded together or not at all."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from padmarlin.convert.jsontext import value_at
from padmarlin.convert.refuse import refuse
from padmarlin.convert.stored import Checkpoint, StoredTensor
from padmarlin.models import LinearLayer, Model
from padmarlin.models.layers import EXPERT, LAYER, Axis

_TEXT_PARTS = ("text_config", "llm_config", "language_config")
_KEYS: dict[str, tuple[str, ...]] = {
    "": ("ffn_hidden_size", "intermediate_size"),
    "experts_": ("moe_intermediate_size", "intermediate_size"),
    "shared_": ("shared_expert_intermediate_size", "moe_intermediate_size"),
}
"""By the beginning of a layer's role: where its size may stand, the most specific key first."""

_FUSED_NAME = re.compile(r"gate_up|gate_and_up|h_to_4h|w13")


@dataclass(frozen=True)
class ModulePattern:
    """Modules that are padded alike: "model.layers.{layer}.mlp.gate_proj"."""

    name: str
    axis: Axis  # "n": the intermediate size is its columns, "k": its rows
    parts: int  # how many times the size lies behind each other
    size: int  # of one part
    other: int  # of the other axis

    def matches(self, names: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(module, its numbers of layer and expert) of those names that it stands for."""
        expression = re.escape(self.name)
        for stand_in in (LAYER, EXPERT):
            expression = expression.replace(re.escape(stand_in), r"(\d+)")
        pattern = re.compile(expression)
        for name in names:
            match = pattern.fullmatch(name)
            if match:
                yield name, match.groups()


@dataclass(frozen=True)
class Family:
    """All MLPs whose size is `factor` times what one key of config.json says."""

    size: int
    patterns: tuple[ModulePattern, ...]  # the last is the output

    @property
    def output(self) -> ModulePattern:
        return self.patterns[-1]


@dataclass(frozen=True)
class SizeKey:
    """A key of config.json, the places where it stands, and the MLPs that have its size."""

    paths: tuple[tuple[str, ...], ...]
    size: int
    families: tuple[tuple[int, Family], ...]  # (how many times the size, the MLPs)

    @property
    def label(self) -> str:
        return ".".join(self.paths[0])


def find_blocks(model: Model, checkpoint: Checkpoint, config: Mapping[str, Any]) -> list[SizeKey]:
    """The MLPs by the key that says their size."""
    by_paths: dict[tuple[tuple[str, ...], ...], list[tuple[int, Family]]] = defaultdict(list)
    sizes: dict[tuple[tuple[str, ...], ...], int] = {}
    for prefix, family in _families(model):
        _check_complete(family, checkpoint)
        paths, size = _paths(prefix, family, config)
        by_paths[paths].append((family.size // size, family))
        sizes[paths] = size
    return [SizeKey(paths, sizes[paths], tuple(found)) for paths, found in by_paths.items()]


def mlp_families(model: Model, checkpoint: Checkpoint) -> list[Family]:
    """The MLPs, whatever says their size."""
    families = [family for _, family in _families(model)]
    for family in families:
        _check_complete(family, checkpoint)
    return families


def _families(model: Model) -> Iterator[tuple[str, Family]]:
    """(beginning of the role, MLPs), from the layers of the model."""
    layers = {layer.name: layer for layer, _ in model.layers}
    for layer in layers.values():
        if layer.role not in ("down", "experts_down", "shared_down"):
            continue
        inputs = _inputs(layer, layers, model.known)
        if inputs:
            output = ModulePattern(layer.modules[0], "k", 1, layer.k, layer.n)
            yield layer.role.removesuffix("down"), Family(layer.k, (*inputs, output))


def _inputs(
    output: LinearLayer, layers: Mapping[str, LinearLayer], known: bool
) -> tuple[ModulePattern, ...]:
    """What computes the rows of `output`: the column-parallel layers beside it."""
    block = output.name.rpartition(".")[0]
    found = []
    for layer in layers.values():
        if layer.axis != "n" or layer.name.rpartition(".")[0] != block:
            continue
        for module in layer.modules:
            width = layer.n // len(layer.modules)
            parts, rest = divmod(width, output.k)
            # Of an unknown architecture, halves are taken for such only by their name.
            halves = parts == 2 and (known or _FUSED_NAME.search(module) is not None)
            if rest == 0 and (parts == 1 or halves):
                found.append(ModulePattern(module, "n", parts, output.k, layer.k))
    return tuple(found)


def _paths(
    prefix: str, family: Family, config: Mapping[str, Any]
) -> tuple[tuple[tuple[str, ...], ...], int]:
    """Every place of the key that says the size, and what stands there."""
    for key in _KEYS[prefix]:
        places = [(part, key) for part in _TEXT_PARTS] + [(key,)]
        stated = {path: value_at(config, path) for path in places}
        # Shared experts may be several times as wide as the routed ones.
        fits = [
            path
            for path, value in stated.items()
            if type(value) is int
            and value > 0
            and (family.size == value or (prefix == "shared_" and family.size % value == 0))
        ]
        if fits:
            size = stated[fits[0]]
            return tuple(path for path in fits if stated[path] == size), size
    got = f"no key that says {family.size}, the rows of {family.output.name}"
    refuse("config.json", got, " or ".join(_KEYS[prefix]), "add it: engines size the layer by it")


def _check_complete(family: Family, checkpoint: Checkpoint) -> None:
    """Refuses an MLP of which something is missing, or nothing is there."""
    modules = checkpoint.modules()
    found = {
        pattern.name: {numbers for _, numbers in pattern.matches(modules)}
        for pattern in family.patterns
    }
    everywhere = set().union(*found.values())
    for name, numbers in found.items():
        missing = sorted(everywhere - numbers)
        if missing or not everywhere:
            named = name
            for stand_in, number in zip(
                (LAYER, EXPERT), missing[0] if missing else (), strict=False
            ):
                named = named.replace(stand_in, number)
            remedy = "download the checkpoint again: its files are not complete"
            got = f"no tensors of {named}"
            elsewhere = _same_end(name, modules) if not everywhere else None
            if elsewhere is not None:
                got += f", but of {elsewhere}"
                remedy = "rename the tensors, or state the model_type whose layers have such names"
            refuse("IN", f"{got} in {checkpoint.folder}", "all of the model's MLPs", remedy)


def _same_end(name: str, modules: Iterable[str]) -> str | None:
    """A module that is named like `name` behind the layer's number."""
    end = name.rpartition(LAYER)[2]
    return next((module for module in modules if module.endswith(end)), None)


def sharing_tensors(family: Family, checkpoint: Checkpoint) -> list[StoredTensor]:
    """Tensors of the MLPs' blocks, beside their matrices, that have the intermediate size: a norm
    over it, say, whose result depends on how wide it is."""
    modules = checkpoint.modules()
    own = {module for pattern in family.patterns for module, _ in pattern.matches(modules)}
    blocks = {module.rpartition(".")[0] + "." for module in own}
    found = []
    for module, tensors in modules.items():
        if module in own or not any(module.startswith(block) for block in blocks):
            continue
        found += [t for t in tensors.values() if len(t.shape) == 1 and t.shape[0] == family.size]
    return found
