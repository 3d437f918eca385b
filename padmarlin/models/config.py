# SPDX-License-Identifier: Apache-2.0
"""A model's config.json: sizes are checked, refusals name their keys."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from padmarlin import jsonfile
from padmarlin.checkpoint.settings import TEXT_PARTS
from padmarlin.jsonfile import JsonObject

# Far above any model's, and low enough that no size from a file can exhaust the memory.
MAX_SIZE = 2**24
MAX_FUSED = 4 * MAX_SIZE  # of matrices that are fused
MAX_LAYERS = 10_000

_FUNCTION = "plan_model"


def refuse(argument: str, got: object, expected: object, remedy: str = "") -> NoReturn:
    """Raises the ValueError of a model that cannot be read."""
    jsonfile.refuse(_FUNCTION, argument, got, expected, remedy)


class Config(JsonObject):
    """config.json, or an object in it."""

    def size(self, *keys: str, default: int | None = None, maximum: int = MAX_SIZE) -> int:
        """The first of `keys` that is there, a positive integer."""
        return self._within(keys, default, 1, maximum)

    def count(self, *keys: str, default: int | None = None, maximum: int = MAX_SIZE) -> int:
        """Like `size`, and 0 is allowed."""
        return self._within(keys, default, 0, maximum)

    def numbers(self, key: str) -> frozenset[int]:
        """A list of integers; empty if there is none."""
        values = self.values.get(key) or []
        if not isinstance(values, list) or not all(type(value) is int for value in values):
            self.refuse(key, "a list of integers")
        return frozenset(values)

    def _within(self, keys: tuple[str, ...], default: int | None, least: int, most: int) -> int:
        if default is not None and not self.has(self.first(*keys)):
            return default
        value = self.integer(*keys)
        if not least <= value <= most:
            self.refuse(self.first(*keys), f"an integer from {least} to {most}")
        return value


def read_config(path: Path) -> Config:
    """The JSON object in a file; refuses a file that is not there."""
    found = jsonfile.read_object(_FUNCTION, path)
    if found is None:
        refuse("path", f"no {path}", "a config.json")
    return Config(found.values, found.source, found.function)


def text_model(config: Config) -> Config:
    """The part that describes the language model: nested where there are other towers."""
    for key in TEXT_PARTS:
        if config.has(key):
            nested = config.part(key)
            # Qwen2-VL's older files name the part, but keep its keys outside.
            if nested.has("hidden_size") or not config.has("hidden_size"):
                return nested
    return config
