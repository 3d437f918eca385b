# SPDX-License-Identifier: Apache-2.0
"""Objects of JSON files, read with suspicion: types are checked, refusals name key and file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from padmarlin.errors import check_regular_file, refusal

# The largest there are, indexes of a million tensors, have about as many bytes.
_MAX_FILE_BYTES = 100 * 2**20

_D = TypeVar("_D")
_Self = TypeVar("_Self", bound="JsonObject")


@dataclass(frozen=True)
class JsonObject:
    """An object of a JSON file, its place there, and the function that refuses what is wrong.

    A key whose value is null counts as absent; every method raises ValueError for a value of
    another type than it returns.
    """

    values: Mapping[str, Any]
    source: str  # "config.json", "'weights' of config.json"
    function: str

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def first(self, *keys: str) -> str:
        """The first of `keys` that is there, or the first of all."""
        return next((key for key in keys if self.has(key)), keys[0])

    def integer(self, *keys: str) -> int:
        """The first of `keys` that is there."""
        key = self.first(*keys)
        value = self.values.get(key)
        if type(value) is not int:
            self.refuse(key, "an integer")
        return value

    def text(self, *keys: str, default: str = "") -> str:
        """The first of `keys` that is there."""
        key = self.first(*keys)
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            self.refuse(key, "a string")
        return default if value is None else value

    def flag(self, key: str, default: _D) -> bool | _D:
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "true or false")
        return default if value is None else value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty if there is none."""
        values = self.values.get(key)
        if values is None:
            return ()
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self.refuse(key, "a list of strings")
        return tuple(values)

    def part(self: _Self, key: str, expected: str = "a JSON object") -> _Self:
        """The object under `key`."""
        values = self.values.get(key)
        if not isinstance(values, dict):
            self.refuse(key, expected)
        return replace(self, values=values, source=f"{key!r} of {self.source}")

    def with_values(self: _Self, values: Mapping[str, Any]) -> _Self:
        """With `values` instead of its own where both have a key."""
        return replace(self, values={**self.values, **values})

    def with_defaults(self: _Self, defaults: Mapping[str, Any]) -> _Self:
        """With `defaults` for the keys that are absent."""
        given = {key: value for key, value in self.values.items() if value is not None}
        return replace(self, values={**defaults, **given})

    def refuse(self, key: str, expected: object, remedy: str = "") -> NoReturn:
        """Refuses what stands under `key`."""
        got = repr(self.values[key]) if key in self.values else "nothing"
        refuse(self.function, f"{key!r} in {self.source}", got, expected, remedy)


def refuse(
    function: str, argument: str, got: object, expected: object, remedy: str = ""
) -> NoReturn:
    """Raises the ValueError of a file that is not what it should be."""
    raise ValueError(refusal(function, argument, got, expected, remedy)) from None


def read_object(function: str, path: Path) -> JsonObject | None:
    """The object in a file, for `function`; None if there is no such file.

    Raises ValueError for anything but a regular file, of reasonable size, with an object in it.
    """
    if not os.path.lexists(path):
        return None
    return JsonObject(_parsed(function, path, _content(function, path)), path.name, function)


def read_text(function: str, path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a file, its line ends as they are, and the object that it is.

    Raises ValueError as `read_object` does, and for a file that is not there.
    """
    content = _content(function, path)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        _refuse_file(function, path, error)
    return text, _parsed(function, path, content)


def _content(function: str, path: Path) -> bytes:
    check_regular_file(function, path.name, path)
    try:
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            refuse(function, path.name, f"{size} bytes", f"at most {_MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        _refuse_file(function, path, error)


def _parsed(function: str, path: Path, content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        _refuse_file(function, path, error)
    if not isinstance(values, dict):
        refuse(function, path.name, f"JSON of type {type(values).__name__}", "a JSON object")
    return values


def _refuse_file(function: str, path: Path, error: Exception) -> NoReturn:
    got = f"{type(error).__name__} ({error})"
    refuse(function, path.name, got, "a readable JSON file", "download the file again")
