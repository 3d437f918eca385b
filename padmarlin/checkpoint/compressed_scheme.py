# SPDX-License-Identifier: Apache-2.0
"""Which of compressed-tensors' ``config_groups`` a layer is in, and what it says of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from padmarlin.checkpoint.refuse import refuse
from padmarlin.checkpoint.settings import Settings

_FORMAT = "pack-quantized"
_LAYER_CLASS = "Linear"
"""The class of every layer that has packed weights; a target may name it instead of layers."""


@dataclass(frozen=True)
class Scheme:
    """How the weights of a layer are quantized."""

    bits: int
    group_size: int  # -1: per channel
    symmetric: bool
    act_order: bool


def scheme_of(settings: Settings, name: str) -> Scheme:
    """The scheme of the layer `name`. Refuses layers and formats that have no packed weights."""
    for target in _texts(settings, "ignore"):
        if _names(settings, "ignore", target, name):
            got = f"{name!r}, which is not quantized"
            remedy = f"{target!r} among 'ignore' in {settings.source} excludes it"
            refuse("name", got, "a quantized layer", remedy)
    group = _group_of(settings, name)
    _check_format(settings, group)
    return _scheme(group)


def _group_of(settings: Settings, name: str) -> Settings:
    """The config group whose target is the most specific: a name before regular expressions, these
    in alphabetical order, before a class. compressed-tensors decides so."""
    groups = settings.values.get("config_groups")
    if not isinstance(groups, dict):
        settings.refuse("config_groups", "an object of groups, each with targets and weights")
    matching: list[tuple[int, str, Settings]] = []
    for key, values in groups.items():
        source = f"'config_groups' / {key!r} of {settings.source}"
        if not isinstance(values, dict):
            refuse(source, repr(values), "an object with targets and weights")
        group = Settings(source, values)
        for target in _texts(group, "targets"):
            if _names(group, "targets", target, name):
                matching.append((int(target.startswith("re:")), target, group))
            elif target == _LAYER_CLASS:
                matching.append((2, target, group))
    if not matching:
        remedy = f"no target of 'config_groups' in {settings.source} matches it"
        refuse("name", f"{name!r}, which is not quantized", "a quantized layer", remedy)
    first = min(rank[:2] for rank in matching)
    # Where two groups have the same target, the later one counts: it replaces the other.
    return [group for *rank, group in matching if tuple(rank) == first][-1]


def _names(settings: Settings, key: str, target: str, name: str) -> bool:
    """Whether a target, a name or "re:" and a regular expression for its beginning, says `name`."""
    if not target.startswith("re:"):
        return target == name
    return settings.matches(key, target.removeprefix("re:"), name)


def _texts(settings: Settings, key: str) -> list[str]:
    values = settings.values.get(key)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        settings.refuse(key, "a list of strings")
    return values


def _check_format(settings: Settings, group: Settings) -> None:
    remedy = "requantize with the format pack-quantized (W4A16 or W8A16)"
    own = group.text("format", default="")
    if own and own != _FORMAT:
        group.refuse("format", repr(_FORMAT), remedy)
    if not own and settings.text("format", default="") != _FORMAT:
        settings.refuse("format", repr(_FORMAT), remedy)
    sparsity = settings.values.get("sparsity_config") or {}
    if not isinstance(sparsity, dict) or sparsity.get("format", "dense") != "dense":
        settings.refuse("sparsity_config", "none, or one of format 'dense'", remedy)


def _scheme(group: Settings) -> Scheme:
    values: Any = group.values.get("weights")
    if not isinstance(values, dict):
        group.refuse("weights", "an object that says how weights are quantized")
    weights = Settings(f"'weights' of {group.source}", values)
    if weights.text("type", default="int") != "int":
        weights.refuse("type", "'int'")
    if weights.values.get("dynamic"):
        weights.refuse("dynamic", "false: the scales are stored")
    symmetric = weights.flag("symmetric")
    return Scheme(
        bits=weights.bits("num_bits"),
        group_size=_group_size(weights),
        symmetric=True if symmetric is None else symmetric,
        act_order=_has_act_order(weights),
    )


def _group_size(weights: Settings) -> int:
    stated = weights.values.get("group_size")
    per_channel = stated in (None, -1)
    strategy = weights.text("strategy", default="channel" if stated == -1 else "group").lower()
    if strategy not in ("group", "channel"):
        weights.refuse("strategy", "'group' or 'channel'")
    if strategy == "channel":
        if not per_channel:
            weights.refuse("group_size", "null or -1, as the strategy is 'channel'")
        return -1
    if weights.group_size() == -1:
        weights.refuse("group_size", "a positive integer, as the strategy is 'group'")
    return weights.group_size()


def _has_act_order(weights: Settings) -> bool:
    """actorder "weight", and its other name "static", ordered the calibration only."""
    order = weights.values.get("actorder")
    if isinstance(order, bool) or order is None:
        return bool(order)
    name = weights.text("actorder", default="").lower()
    if name not in ("group", "dynamic", "weight", "static"):
        weights.refuse("actorder", "'group', 'weight', true, false or null")
    return name in ("group", "dynamic")
