# SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint keeps its quantization settings."""

from __future__ import annotations

import itertools
from pathlib import Path

from padmarlin.jsonfile import JsonObject, read_object, refuse

CONFIG = "config.json"
OWN_FILE = "quantize_config.json"
"""AutoGPTQ's, for settings alone."""

TEXT_PARTS = ("text_config", "llm_config", "language_config")
"""Where config.json of a model with several towers has the language model's keys."""

_KEYS = ("quantization_config", "compression_config")
"""The second is what compressed-tensors wrote before Transformers knew it."""

PLACES = tuple((*part, key) for part in ((), *((name,) for name in TEXT_PARTS)) for key in _KEYS)
"""Paths of keys in config.json, the usual one first."""


def find_settings(
    function: str, config: JsonObject | None, folder: Path | None
) -> JsonObject | None:
    """The settings in config.json, where Transformers looks, or else in a file of their own.

    Args:
        function: in whose name settings are refused.
        config: the object of config.json, if there is one.
        folder: where to look for quantize_config.json; None: nowhere.

    Raises ValueError for a file that cannot be read, or settings that are no object.
    """
    found = None if config is None else _within(config)
    if config is not None and found is not None:
        return JsonObject(found.values, config.source, function)
    return None if folder is None else read_object(function, folder / OWN_FILE)


def _within(config: JsonObject) -> JsonObject | None:
    inner = (config.part(name) for name in TEXT_PARTS if config.has(name))
    for owner in itertools.chain([config], inner):
        for key in filter(owner.has, _KEYS):
            return owner.part(key, "an object of quantization settings")
    return None


def read_settings(function: str, folder: Path) -> JsonObject:
    """The settings of a checkpoint's folder; refuses one that has none."""
    config = read_object(function, folder / CONFIG)
    found = find_settings(function, config, folder)
    if found is None:
        got = f"no {CONFIG}" if config is None else f"a {CONFIG} without quantization_config"
        expected = f"quantization settings there or in {OWN_FILE}"
        remedy = "pass the directory of a quantized checkpoint"
        refuse(function, "checkpoint_dir", f"{got} in {folder}", expected, remedy)
    return found
