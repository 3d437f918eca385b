# SPDX-License-Identifier: Apache-2.0
"""A model's config.json, read with suspicion: sizes are checked, refusals name their keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from padmarlin.errors import refusal

# Far above any model's, and low enough that no size from a file can exhaust the memory.
MAX_SIZE = 2**24
MAX_FUSED = 4 * MAX_SIZE  # of matrices that are fused
MAX_LAYERS = 10_000
_MAX_FILE_BYTES = 64 * 2**20

_TEXT_PARTS = ("text_config", "llm_config", "language_config")
"""Where models with several towers keep the language model's keys."""


def refuse(argument: str, got: object, expected: object, remedy: str = "") -> NoReturn:
    """Raises the ValueError of a model that cannot be read."""
    raise ValueError(refusal("plan_model", argument, got, expected, remedy)) from None


@dataclass(frozen=True)
class Config:
    """An object of a JSON file, and its place there."""

    values: Mapping[str, Any]
    source: str

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def size(self, *keys: str, default: int | None = None, maximum: int = MAX_SIZE) -> int:
        """The first of `keys` that is there, a positive integer."""
        return self._integer(keys, default, 1, maximum)

    def count(self, *keys: str, default: int | None = None, maximum: int = MAX_SIZE) -> int:
        """Like `size`, and 0 is allowed."""
        return self._integer(keys, default, 0, maximum)

    def first(self, *keys: str) -> str:
        """The first of `keys` that is there, or the first of all."""
        return next((key for key in keys if self.has(key)), keys[0])

    def text(self, key: str, default: str = "") -> str:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            self.refuse(key, "a string")
        return default if value is None else value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "true or false")
        return default if value is None else value

    def numbers(self, key: str) -> frozenset[int]:
        values = self.values.get(key) or []
        if not isinstance(values, list) or not all(type(value) is int for value in values):
            self.refuse(key, "a list of integers")
        return frozenset(values)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.values.get(key) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self.refuse(key, "a list of strings")
        return tuple(values)

    def part(self, key: str) -> Config:
        """The object under `key`."""
        values = self.values.get(key)
        if not isinstance(values, dict):
            self.refuse(key, "a JSON object")
        return Config(values, f"{key!r} of {self.source}")

    def with_defaults(self, defaults: Mapping[str, Any]) -> Config:
        given = {key: value for key, value in self.values.items() if value is not None}
        return Config({**defaults, **given}, self.source)

    def refuse(self, key: str, expected: object, remedy: str = "") -> NoReturn:
        got = _short(self.values[key]) if key in self.values else "nothing"
        refuse(f"{key!r} in {self.source}", got, expected, remedy)

    def _integer(self, keys: tuple[str, ...], default: int | None, least: int, most: int) -> int:
        key = self.first(*keys)
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not least <= value <= most:
            self.refuse(key, f"an integer from {least} to {most}")
        return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_config(path: Path) -> Config:
    """The JSON object in a file."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            refuse(path.name, f"{path.stat().st_size} bytes", f"at most {_MAX_FILE_BYTES}")
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        refuse("path", f"no {path}", "a config.json")
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ValueError) and str(error).startswith("plan_model"):
            raise
        got = f"{type(error).__name__} ({error})"
        refuse(path.name, got, "a readable JSON file", "download the file again")
    if not isinstance(values, dict):
        refuse(path.name, f"JSON of type {type(values).__name__}", "a JSON object")
    return Config(values, path.name)


def text_model(config: Config) -> Config:
    """The part that describes the language model: nested where there are other towers."""
    for key in _TEXT_PARTS:
        if config.has(key):
            nested = config.part(key)
            # Qwen2-VL's older files name the part, but keep its keys outside.
            if nested.has("hidden_size") or not config.has("hidden_size"):
                return nested
    return config
