# SPDX-License-Identifier: Apache-2.0
"""Which of compressed-tensors' ``config_groups`` a layer is in, and what it says of weights."""

from __future__ import annotations

from collections.abc import Sequence

from padmarlin.checkpoint.scheme import (
    Excluded,
    Own,
    Scheme,
    bits_of,
    group_size_of,
    names_matching,
)
from padmarlin.jsonfile import JsonObject

REORDERING = ("group", "dynamic")
"""What "actorder" says, in any case, where rows are in another order; true means "group". "weight"
and its other name "static" ordered the calibration only."""

_FORMAT = "pack-quantized"
_LAYER_CLASS = "Linear"
"""The class of every layer that has packed weights; a target may name it instead of layers."""


def own_settings(settings: JsonObject, names: Sequence[str]) -> dict[str, Own]:
    """Each layer's config group: the one whose target is the most specific, a name before regular
    expressions, these in alphabetical order, before a class. compressed-tensors decides so."""
    found: dict[str, Own] = {}
    for target in settings.texts("ignore"):
        excluded = Excluded(f"{target!r} among 'ignore' in {settings.source} excludes it")
        for name in _named(settings, "ignore", target, names):
            found.setdefault(name, excluded)
    undecided = [name for name in names if name not in found]
    for target, group in sorted(_targets(settings).items(), key=lambda pair: _rank(pair[0])):
        matched = _named(group, "targets", target, undecided)
        if target == _LAYER_CLASS:
            matched = frozenset(undecided)
        found |= dict.fromkeys(matched, group)
        undecided = [name for name in undecided if name not in matched]
    why = f"no target of 'config_groups' in {settings.source} matches it"
    return found | dict.fromkeys(undecided, Excluded(why))


def common_group(settings: JsonObject) -> JsonObject:
    """The group of layers without a group of their own; without such, the first."""
    groups = _targets(settings)
    if not groups:
        settings.refuse("config_groups", "at least one group with targets")
    return groups.get(_LAYER_CLASS) or next(iter(groups.values()))


def _targets(settings: JsonObject) -> dict[str, JsonObject]:
    """Every target with its group; of groups with the same target, the last one replaces others."""
    expected = "an object of groups, each with targets and weights"
    groups = settings.part("config_groups", expected)
    found: dict[str, JsonObject] = {}
    for key in groups.values:
        group = groups.part(key, "an object with targets and weights")
        found |= dict.fromkeys(group.texts("targets"), group)
    return found


def _rank(target: str) -> tuple[int, str]:
    if target == _LAYER_CLASS:
        return 2, target
    return int(target.startswith("re:")), target


def _named(settings: JsonObject, key: str, target: str, names: Sequence[str]) -> frozenset[str]:
    """The layers that a target says: a name, or "re:" and an expression for its beginning."""
    if not target.startswith("re:"):
        return frozenset({target} & set(names))
    return names_matching(settings, key, target.removeprefix("re:"), names)


def compressed_scheme(group: JsonObject) -> Scheme:
    weights = group.part("weights", "an object that says how weights are quantized")
    if weights.text("type", default="int") != "int":
        weights.refuse("type", "'int'", "requantize to integers")
    return Scheme(
        "compressed-tensors",
        bits_of(weights, "num_bits"),
        _group_size(weights),
        weights.flag("symmetric", True),
        _has_act_order(weights),
    )


def check_compressed_packing(settings: JsonObject, group: JsonObject) -> None:
    """Refuses formats that have no packed weights."""
    remedy = "requantize with the format pack-quantized (W4A16 or W8A16)"
    owner = group if group.text("format") else settings
    if owner.text("format") != _FORMAT:
        owner.refuse("format", repr(_FORMAT), remedy)
    sparsity = settings.values.get("sparsity_config") or {}
    if not isinstance(sparsity, dict) or sparsity.get("format", "dense") != "dense":
        settings.refuse("sparsity_config", "none, or one of format 'dense'", remedy)
    weights = group.part("weights", "an object that says how weights are quantized")
    if weights.values.get("dynamic"):
        weights.refuse("dynamic", "false: the scales are stored")


def _group_size(weights: JsonObject) -> int:
    stated = weights.values.get("group_size")
    strategy = weights.text("strategy", default="channel" if stated == -1 else "group").lower()
    if strategy not in ("group", "channel"):
        weights.refuse("strategy", "'group' or 'channel'")
    if strategy == "channel":
        if stated not in (None, -1):
            weights.refuse("group_size", "null or -1, as the strategy is 'channel'")
        return -1
    if group_size_of(weights, "group_size") == -1:
        weights.refuse("group_size", "a positive integer, as the strategy is 'group'")
    return group_size_of(weights, "group_size")


def _has_act_order(weights: JsonObject) -> bool:
    order = weights.values.get("actorder")
    if isinstance(order, bool) or order is None:
        return bool(order)
    name = weights.text("actorder").lower()
    if name not in (*REORDERING, "weight", "static"):
        weights.refuse("actorder", "'group', 'weight', true, false or null")
    return name in REORDERING
