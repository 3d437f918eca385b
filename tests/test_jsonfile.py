# SPDX-License-Identifier: Apache-2.0
"""Objects of JSON files: what is read, and what is refused in whose name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from padmarlin import jsonfile
from padmarlin.jsonfile import JsonObject, read_object, read_text


def made(**values: Any) -> JsonObject:
    return JsonObject(values, "a.json", "f")


def test_null_is_absent() -> None:
    given = made(a=None, b=3, c="x", d=False, e=["y"])
    assert not given.has("a") and given.first("a", "b") == "b" and given.first("a") == "a"
    assert given.integer("a", "b") == 3
    assert given.text("a", "c") == "x" and given.text("a", default="z") == "z"
    assert given.flag("d", None) is False and given.flag("a", None) is None
    assert given.texts("a") == () and given.texts("e") == ("y",)
    assert given.with_defaults({"a": 1, "b": 2}).values["a"] == 1
    assert given.with_defaults({"a": 1, "b": 2}).values["b"] == 3
    assert given.with_values({"b": 2}).integer("b") == 2


@pytest.mark.parametrize(
    ("value", "method", "expected"),
    [
        (True, "integer", "an integer"),
        (4.0, "integer", "an integer"),
        ("4", "integer", "an integer"),
        (3, "text", "a string"),
        ("a", "texts", "a list of strings"),
        ([1], "texts", "a list of strings"),
        ([], "part", "a JSON object"),
    ],
)
def test_other_types_are_refused(value: object, method: str, expected: str) -> None:
    said = f"f: 'key' in a.json: got {value!r}, expected {expected}"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        getattr(made(key=value), method)("key")
    with pytest.raises(ValueError, match=r"f: 'key' in 'part' of a\.json: got 0, expected true"):
        made(part={"key": 0}).part("part").flag("key", False)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"f: 'a' in a\.json: got nothing, expected an integer"):
        made().integer("a", "b")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_object("f", path) is None
    path.write_bytes(b'{"a": 1}\r\n')
    assert read_object("f", path) == made(a=1)
    assert read_text("f", path) == ('{"a": 1}\r\n', {"a": 1})
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')  # a byte order mark, as some editors write it
    assert read_object("f", path) == made(a=1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000])
@pytest.mark.parametrize("read", [read_object, read_text])
def test_files_that_hold_no_object(read: Any, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^f: a\.json: got .*, expected a "):
        read("f", tmp_path / "a.json")


def test_files_that_would_never_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match=r"^f: pipe\.json: got .*, expected a regular file"):
        read_object("f", tmp_path / "pipe.json")
    monkeypatch.setattr(jsonfile, "_MAX_FILE_BYTES", 8)
    (tmp_path / "a.json").write_text('{"a": 123}')
    with pytest.raises(ValueError, match=r"^f: a\.json: got 10 bytes, expected at most 8"):
        read_object("f", tmp_path / "a.json")
