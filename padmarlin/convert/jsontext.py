# SPDX-License-Identifier: Apache-2.0
"""Changing a value in the text of a JSON file and leaving every other byte as it is, so that what
was changed can be changed back."""

from __future__ import annotations

import json
import re
from json import decoder
from typing import Any

Path = tuple[str, ...]

_BLANKS = re.compile(r"[ \t\n\r]*")


def value_at(values: Any, path: Path) -> Any:
    """The value at a path of keys; None if there is none."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def replace(text: str, path: Path, value: Any) -> str:
    """The text with another value at `path`, which must exist."""
    start, end = _span(text, 0, path)
    return text[:start] + json.dumps(value) + text[end:]


def append_member(text: str, key: str, value: Any) -> str:
    """The object with one more member at its end."""
    closing = text.rindex("}")
    body = text[:closing].rstrip()
    comma = "" if body.endswith("{") else ","
    return body + _member(comma, key, value) + text[len(body) :]


def remove_member(text: str, key: str) -> str:
    """The inverse of `append_member`. Other writers may have rewritten the file since."""
    values = json.loads(text)
    if key not in values:
        return text
    value = values.pop(key)
    for comma in (",", ""):
        member = _member(comma, key, value)
        if text.count(member) == 1:
            return text.replace(member, "")
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _member(comma: str, key: str, value: Any) -> str:
    return f"{comma}\n  {json.dumps(key)}: {json.dumps(value)}"


def _span(text: str, at: int, path: Path) -> tuple[int, int]:
    """Where the value at `path` of the value that begins at `at` stands. The text is valid JSON."""
    at = _after_blanks(text, at)
    if not path:
        return at, json.JSONDecoder().raw_decode(text, at)[1]
    found = None
    at = _after_blanks(text, at + 1)  # behind the brace
    while text[at] == '"':
        key, at = decoder.scanstring(text, at + 1)  # type: ignore[attr-defined]
        at = _after_blanks(text, _after_blanks(text, at) + 1)  # behind the colon
        if key == path[0]:
            found = at  # the last counts where a key stands twice
        at = _after_blanks(text, json.JSONDecoder().raw_decode(text, at)[1])
        if text[at] == ",":
            at = _after_blanks(text, at + 1)
    if found is None:
        raise KeyError(path[0])
    return _span(text, found, path[1:])


def _after_blanks(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    assert blanks is not None
    return blanks.end()
