# SPDX-License-Identifier: Apache-2.0
"""The quantization settings of a checkpoint and of one layer, read from its JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from padmarlin.checkpoint.patterns import matches
from padmarlin.checkpoint.refuse import refuse
from padmarlin.errors import INT32_MAX, check_regular_file


@dataclass(frozen=True)
class Settings:
    """Quantization settings, and the file they come from."""

    source: str
    values: Mapping[str, Any]

    def refuse(self, key: str, expected: str, remedy: str = "") -> NoReturn:
        got = repr(self.values[key]) if key in self.values else "nothing"
        refuse(f"{key!r} in {self.source}", got, expected, remedy)

    def integer(self, key: str) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(key, "an integer")
        return value

    def bits(self, key: str) -> int:
        bits = self.integer(key)
        if bits not in (4, 8):
            self.refuse(key, "4 or 8")
        return bits

    def group_size(self) -> int:
        group_size = self.integer("group_size")
        if group_size != -1 and not 1 <= group_size <= INT32_MAX:
            self.refuse("group_size", f"1 to {INT32_MAX}, or -1 for one group")
        return group_size

    def check_pack_dtype(self) -> None:
        """GPTQModel can pack into other words; 32 bits are everybody's."""
        if self.text("pack_dtype", default="int32") != "int32":
            self.refuse("pack_dtype", "'int32'")

    def flag(self, key: str) -> bool | None:
        """None if it is not there."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def text(self, *keys: str, default: str) -> str:
        """The first of the keys that is there."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, str):
                return value
            if value is not None:
                self.refuse(key, "a string")
        return default

    @property
    def method(self) -> str:
        """AutoGPTQ's quantize_config.json names none: it knew only GPTQ."""
        return self.text("quant_method", "method", default="gptq").lower()

    def of_layer(self, name: str) -> Settings:
        """With the per-layer rules of GPTQModel's ``dynamic`` applied.

        The first regular expression that matches the beginning of the name decides. Behind "-:" it
        says that the layer is not quantized; behind "+:" or nothing, that the settings given with
        it replace the common ones.
        """
        rules = self.values.get("dynamic") or {}
        if not isinstance(rules, dict):
            self.refuse("dynamic", "an object: regular expression -> settings")
        for rule, overrides in rules.items():
            if not self.matches("dynamic", rule.removeprefix("-:").removeprefix("+:"), name):
                continue
            if rule.startswith("-:"):
                remedy = f"the rule {rule!r} in {self.source} excludes it; use {name}.weight"
                refuse("name", f"{name!r}, which is not quantized", "a quantized layer", remedy)
            if not isinstance(overrides, dict):
                self.refuse("dynamic", f"an object of settings behind {rule!r}")
            return Settings(self.source, {**self.values, **overrides})
        return self

    def matches(self, key: str, expression: str, name: str) -> bool:
        """Whether a regular expression, given under `key`, matches the beginning of `name`."""
        try:
            return matches(expression, name)
        except ValueError as error:
            self.refuse(key, f"regular expressions ({expression!r}: {error})")


def read_settings(directory: Path) -> Settings:
    """From config.json, where Transformers looks, else quantize_config.json, AutoGPTQ's own."""
    config = read_json(directory / "config.json")
    if config is not None and config.get("quantization_config") is not None:
        values = config["quantization_config"]
        if not isinstance(values, dict):
            expected = "an object of quantization settings"
            refuse("'quantization_config' in config.json", repr(values), expected)
        return Settings("config.json", values)
    values = read_json(directory / "quantize_config.json")
    if values is not None:
        return Settings("quantize_config.json", values)
    got = "no config.json" if config is None else "a config.json without quantization_config"
    expected = "quantization settings there or in quantize_config.json"
    remedy = "pass the directory of a quantized checkpoint"
    refuse("checkpoint_dir", f"{got} in {directory}", expected, remedy)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file."""
    if not os.path.lexists(path):
        return None
    check_regular_file("load_weight", path.name, path)
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        got = f"{type(error).__name__} ({error})"
        refuse(path.name, got, "a readable JSON file", "download the file again")
    if not isinstance(value, dict):
        refuse(path.name, f"JSON of type {type(value).__name__}", "a JSON object")
    return value
