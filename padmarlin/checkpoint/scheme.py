# SPDX-License-Identifier: Apache-2.0
"""How the weights of a layer are quantized, and what every method's settings have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from padmarlin.checkpoint.patterns import matching
from padmarlin.errors import INT32_MAX
from padmarlin.jsonfile import JsonObject

Method = Literal["gptq", "awq", "compressed-tensors"]


@dataclass(frozen=True)
class Scheme:
    """How the weights of a layer are quantized, as the settings say."""

    method: Method
    bits: int
    group_size: int  # rows of a group; -1: one group over all of K
    sym: bool | None  # None: the settings do not say
    act_order: bool
    zeros_minus_one: bool = False  # GPTQ version 1


@dataclass(frozen=True)
class Excluded:
    """Of a layer that is not quantized: what in the settings says so."""

    why: str


Own = JsonObject | Excluded
"""The settings that hold for one layer."""


def bits_of(settings: JsonObject, *keys: str) -> int:
    bits = settings.integer(*keys)
    if bits not in (4, 8):
        settings.refuse(settings.first(*keys), "4 or 8")
    return bits


def group_size_of(settings: JsonObject, *keys: str) -> int:
    """Rows of a group; -1: one group over all of K."""
    group_size = settings.integer(*keys)
    if group_size != -1 and not 1 <= group_size <= INT32_MAX:
        settings.refuse(settings.first(*keys), f"1 to {INT32_MAX}, or -1 for one group")
    return group_size


def names_matching(
    settings: JsonObject, key: str, expression: str, names: Iterable[str]
) -> frozenset[str]:
    """Those of `names` whose beginning a regular expression, given under `key`, matches."""
    try:
        return matching(expression, names)
    except ValueError as error:
        settings.refuse(key, f"regular expressions ({expression!r}: {error})")
