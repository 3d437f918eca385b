# SPDX-License-Identifier: Apache-2.0
"""What the settings of GPTQ and AWQ say, in common and by GPTQModel's rules for single layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from padmarlin.checkpoint.scheme import (
    Excluded,
    Own,
    Scheme,
    bits_of,
    group_size_of,
    names_matching,
)
from padmarlin.jsonfile import JsonObject


def own_settings(settings: JsonObject, names: Sequence[str]) -> dict[str, Own]:
    """What holds for each layer, by the per-layer rules of GPTQModel's ``dynamic``.

    The first regular expression that matches the beginning of a name decides. Behind "-:" it says
    that the layer is not quantized; behind "+:" or nothing, that the settings given with it replace
    the common ones.
    """
    found: dict[str, Own] = {}
    undecided = list(names)
    for rule, own in _rules(settings):
        expression = rule.removeprefix("-:").removeprefix("+:")
        if undecided:
            matched = names_matching(settings, "dynamic", expression, undecided)
            found |= dict.fromkeys(matched, own)
            undecided = [name for name in undecided if name not in matched]
    return found | dict.fromkeys(undecided, settings)


def _rules(settings: JsonObject) -> Iterator[tuple[str, Own]]:
    """Each rule, and what holds for the layers that it matches first."""
    # Null, and whatever else is empty, says that there are none.
    if not settings.values.get("dynamic"):
        return
    rules = settings.part("dynamic", "an object: regular expression -> settings")
    for rule, changes in rules.values.items():
        if rule.startswith("-:"):
            yield rule, Excluded(f"the rule {rule!r} in {settings.source} excludes it")
        elif isinstance(changes, dict):
            source = f"{settings.source} with its rule {rule!r}"
            yield rule, replace(settings.with_values(changes), source=source)
        else:
            rules.refuse(rule, "an object of settings")


def gptq_scheme(own: JsonObject) -> Scheme:
    # AutoGPTQ wrote version 1 without saying so; GPTQModel says it, newer ones under both names.
    version = own.text("checkpoint_format", "format", default="gptq")
    return Scheme(
        "gptq",
        bits_of(own, "bits"),
        group_size_of(own, "group_size"),
        own.flag("sym", None),
        own.flag("desc_act", False),
        zeros_minus_one=version == "gptq",
    )


def awq_scheme(own: JsonObject) -> Scheme:
    # Settings of AutoAWQ's own file have other names.
    bits = bits_of(own, "bits", "w_bit")
    group_size = group_size_of(own, "group_size", "q_group_size")
    sym = True if own.flag("zero_point", None) is False else None
    return Scheme("awq", bits, group_size, sym, act_order=False)


def check_gptq_packing(settings: JsonObject, own: JsonObject) -> None:
    """Refuses words in an order that padmarlin does not read."""
    if own.text("checkpoint_format", "format", default="gptq") not in ("gptq", "gptq_v2"):
        key = own.first("checkpoint_format", "format")
        own.refuse(key, "'gptq' or 'gptq_v2'", "requantize or convert to one of these")
    _check_words(own)


def check_awq_packing(settings: JsonObject, own: JsonObject) -> None:
    """Refuses words in an order that padmarlin does not read."""
    # AutoAWQ says "version", GPTQModel all three.
    for key in ("version", "format", "checkpoint_format"):
        if own.text(key, default="gemm").lower() != "gemm":
            remedy = "this version packs in another order: requantize or convert to gemm"
            own.refuse(key, "'gemm'", remedy)
    if own.integer("bits", "w_bit") != 4:
        own.refuse(own.first("bits", "w_bit"), "4: AWQ defines no other packing")
    _check_words(own)


def _check_words(own: JsonObject) -> None:
    """GPTQModel can pack into other words; 32 bits are everybody's."""
    if own.text("pack_dtype", default="int32") != "int32":
        own.refuse("pack_dtype", "'int32'")
