# SPDX-License-Identifier: Apache-2.0
"""What a padding did, for undoing it: padmarlin_padding.json, and the same without the checkpoint's
own bytes under a key of config.json, which quantizers carry over to what they write."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from padmarlin.convert.axis import Array
from padmarlin.convert.refuse import refuse
from padmarlin.jsonfile import read_text
from padmarlin.models.layers import Axis

RECORD = "padmarlin_padding.json"
CONFIG_KEY = "padmarlin_padding"
VERSION = 1


@dataclass(frozen=True)
class PaddedSize:
    """A key of config.json."""

    path: tuple[str, ...]
    original: int
    padded: int


@dataclass(frozen=True)
class PaddedModules:
    """Modules that grew: `parts` times from `original` to `padded` along `axis`, at their ends."""

    name: str
    axis: Axis
    parts: int
    original: int
    padded: int


@dataclass(frozen=True)
class PaddingRecord:
    """All of it."""

    padmarlin: str
    tp: int
    multiple: int
    sizes: tuple[PaddedSize, ...]
    modules: tuple[PaddedModules, ...]
    left: tuple[str, ...] = ()  # what was not padded, and why
    # Bits behind the last code of a word mean nothing, but were there: by tensor, the words.
    fillings: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The file's."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2) + "\n"

    def for_config(self) -> dict[str, Any]:
        """What config.json gets: sizes and names, which hold whatever the tensors' format is."""
        values = {"version": VERSION, **asdict(self)}
        return {key: values[key] for key in ("version", "padmarlin", "sizes", "modules")}


def read_record(folder: Path, config: Mapping[str, Any]) -> PaddingRecord | None:
    """The record of a folder, from its own file or else from config.json; None: there is none."""
    path, source = folder / RECORD, RECORD
    if path.exists():
        values: Any = read_text("convert", path)[1]
    elif CONFIG_KEY in config:
        values, source = config[CONFIG_KEY], f"{CONFIG_KEY!r} in config.json"
    else:
        return None
    version = values.get("version") if isinstance(values, dict) else None
    if version != VERSION:
        refuse(source, f"version {version!r:.40}", str(VERSION), "use the padmarlin that wrote it")
    try:
        record = PaddingRecord(
            padmarlin=str(values["padmarlin"]),
            tp=values.get("tp", 0),
            multiple=values.get("multiple", 0),
            sizes=tuple(PaddedSize(**{**s, "path": tuple(s["path"])}) for s in values["sizes"]),
            modules=tuple(PaddedModules(**module) for module in values["modules"]),
            left=tuple(values.get("left", ())),
            fillings=dict(values.get("fillings", {})),
        )
        everything: list[PaddedSize | PaddedModules] = [*record.sizes, *record.modules]
        for grown in everything:
            if type(grown.original) is not int or type(grown.padded) is not int:
                raise TypeError("sizes that are no integers")
            if not 0 < grown.original <= grown.padded:
                raise ValueError(f"{grown.original} padded to {grown.padded}")
        for module in record.modules:
            if module.axis not in ("k", "n") or module.parts not in (1, 2):
                raise ValueError(f"axis {module.axis!r}, parts {module.parts!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        refuse(source, f"{type(error).__name__} ({error})", "a record that padmarlin wrote")
    return record


def encode_bits(array: Array) -> str:
    """A few words as text."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def decode_bits(text: str, like: Array) -> Array:
    """The inverse, in the shape and dtype of `like`."""
    try:
        data = zlib.decompress(base64.b64decode(text, validate=True), bufsize=like.nbytes)
        return np.frombuffer(data, like.dtype).reshape(like.shape)
    except (ValueError, zlib.error) as error:
        refuse(RECORD, f"damaged 'fillings' ({error})", "what padmarlin wrote")
