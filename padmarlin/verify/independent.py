# SPDX-License-Identifier: Apache-2.0
"""An independent reading of GPTQ, AWQ and compressed-tensors: what each weight is, in float64.

Derived from the formats alone, sharing nothing with padmarlin.formats, layout or reference:

- A word holds 32 / bits unsigned codes, the first in its lowest bits. A weight is (q - z) * s, with
  the z and s of its group.
- GPTQ: words along K, of zero points along N. Version 1 stores each word of zero points minus one
  in every field, subtracted from the word as a whole, so that a field of 0 borrows from the next;
  adding that number to the word, modulo 2^32, undoes it.
- AWQ: words along N; the i-th field of a word holds column (0, 2, 4, 6, 1, 3, 5, 7)[i].
- compressed-tensors: (n, k), words along K, of zero points along N; codes are moved by 2^(bits-1),
  so that a symmetric zero point is 2^(bits-1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from padmarlin.checkpoint.patterns import matches
from padmarlin.verify.files import Array, Files, as_float, read_json, refuse

_AWQ_FIELDS = np.argsort([0, 2, 4, 6, 1, 3, 5, 7])  # of each column: the inverse of the above
_CODES = (("qweight", "scales"), ("weight_packed", "weight_scale"))
_OWN = {
    "qweight": ("qweight", "qzeros", "scales", "g_idx"),
    "weight_packed": (
        *("weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx"),
        "weight_shape",
    ),
}


Index = slice | Array
"""Positions along an axis: from, to; or one by one."""


def _fields(words: Array, bits: int, axis: int, index: Index, order: Array | None = None) -> Array:
    """The codes at `index` along the `axis` that is packed, int32.

    Args:
        words: int32, two dimensions.
        order: the field of a word in which each of its codes is; None: in their own order.
    """
    here = np.arange(index.start, index.stop) if isinstance(index, slice) else index
    per_word = 32 // bits
    field = here % per_word if order is None else order[here % per_word]
    shifts = (field * bits).astype(np.uint32)
    taken = np.take(words, here // per_word, axis).view(np.uint32)
    mask = np.uint32((1 << bits) - 1)
    codes = taken >> (shifts[:, None] if axis == 0 else shifts) & mask
    return codes.astype(np.int32)


@dataclass(frozen=True)
class Layer:
    """A quantized (k, n) layer on disk."""

    files: Files
    name: str
    method: str  # "gptq", "awq" or "compressed-tensors"
    k: int
    n: int
    bits: int
    group_size: int  # -1: one group
    symmetric: bool  # compressed-tensors without zero points
    plus_one: bool  # GPTQ version 1
    groups: Array  # (k): the group of each row
    rounding: str | None = None  # what the weights are rounded to, if not what `dtype` says

    @property
    def dtype(self) -> str:
        """What the weights are rounded to: the dtype of the scales, "F16" where that is F32."""
        if self.rounding is not None:
            return self.rounding
        stored = self.files.entry(f"{self.name}.{self._scales}").dtype
        return "F16" if stored == "F32" else stored

    @property
    def _scales(self) -> str:
        return "weight_scale" if self.method == "compressed-tensors" else "scales"

    def _array(self, suffix: str) -> Array:
        return self.files.array(f"{self.name}.{suffix}")

    def block(self, rows: Index, columns: Index) -> Array:
        """Weights of the layer in float64, each rounded as the checkpoint's dtype has it."""
        values = self._codes(rows, columns).astype(np.float64)
        groups = self.groups[rows]
        first, last = int(groups.min()), int(groups.max()) + 1
        zeros, scales = self._tables(slice(first, last), columns)
        groups = groups - first
        values -= zeros[groups]
        values *= scales[groups]
        return rounded(values, self.dtype)

    def _codes(self, rows: Index, columns: Index) -> Array:
        if self.method == "gptq":
            return _fields(self._array("qweight")[:, columns], self.bits, 0, rows)
        if self.method == "awq":
            return _fields(self._array("qweight")[rows], self.bits, 1, columns, _AWQ_FIELDS)
        return _fields(self._array("weight_packed")[columns], self.bits, 1, rows).T

    def _tables(self, groups: slice, columns: Index) -> tuple[Array, Array]:
        """(zero points, scales in float64), both (groups, columns)."""
        entry = self.files.entry(f"{self.name}.{self._scales}")
        stored = self._array(self._scales)
        turned = self.method == "compressed-tensors"
        taken = stored[columns, groups].T if turned else stored[groups, columns]
        scales = rounded(as_float(taken, entry.dtype).astype(np.float64), self.dtype)
        if turned and self.symmetric:
            return np.full(scales.shape, 1 << (self.bits - 1)), scales
        if turned:
            words = self._array("weight_zero_point")[:, groups]
            return _fields(words, self.bits, 0, columns).T, scales
        words = np.ascontiguousarray(self._array("qzeros")[groups])
        if self.plus_one:
            ones = np.uint32(sum(1 << shift for shift in range(0, 32, self.bits)))
            words = (words.view(np.uint32) + ones).view(np.int32)
        order = _AWQ_FIELDS if self.method == "awq" else None
        return _fields(words, self.bits, 1, columns, order), scales


def rounded(values: Array, dtype: str) -> Array:
    """float64, each rounded to nearest, ties to even, as F16 or BF16 would hold it."""
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float64)
    # BF16 is the upper half of float32, which holds scales, and products of 9 bits and 8, exactly.
    bits = values.astype(np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    bits = (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64)


class Checkpoint:
    """A checkpoint directory: its quantized layers, and the names of its other tensors."""

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            refuse("checkpoint", repr(str(directory)), "an existing directory")
        self.files = Files(directory)
        self.settings = _settings(directory)
        self._codes = {
            name.rpartition(".")[0]: name.rpartition(".")[2]
            for name in self.files.entries
            if name.rpartition(".")[2] in _OWN
        }
        own = {f"{layer}.{s}" for layer, codes in self._codes.items() for s in _OWN[codes]}
        self.others = sorted(self.files.entries.keys() - own)
        self.layers = sorted(self._codes, key=_natural)

    def layer(self, name: str) -> Layer:
        if name not in self._codes:
            refuse("layer", repr(name), f"a quantized layer of {self.files.directory}")
        if not self.settings:
            got = f"no quantization settings in {self.files.directory}"
            refuse("config.json", got, "quantization_config")
        try:
            return self._layer(name)
        except Exception as error:  # settings may be anything that JSON can say
            if str(error).startswith("verify: "):
                raise
            got = f"{type(error).__name__} ({error})"
            refuse(f"layer {name!r}", got, "tensors and settings that fit together")

    def _layer(self, name: str) -> Layer:
        if self._codes[name] == "weight_packed":
            return self._compressed_tensors(name)
        settings = _of_layer(self.settings, name)
        method = str(settings.get("quant_method") or settings.get("method") or "gptq").lower()
        bits = int(settings["bits"] if "bits" in settings else settings["w_bit"])
        words = self.files.entry(f"{name}.qweight").shape
        groups, n = self.files.entry(f"{name}.scales").shape
        size = int(settings["group_size"] if "group_size" in settings else settings["q_group_size"])
        k = words[0]
        if method != "awq":
            # Without a g_idx the words are full, unless the groups leave only fewer rows.
            k = words[0] * 32 // bits if size == -1 else min(words[0] * 32 // bits, groups * size)
            if f"{name}.g_idx" in self.files:
                k = self.files.entry(f"{name}.g_idx").shape[0]
        version = settings.get("checkpoint_format") or settings.get("format") or "gptq"
        return Layer(
            files=self.files,
            name=name,
            method="awq" if method == "awq" else "gptq",
            k=k,
            n=n,
            bits=bits,
            group_size=size,
            symmetric=False,
            plus_one=method != "awq" and version != "gptq_v2",
            groups=self._groups(f"{name}.g_idx", k, size, groups),
        )

    def _compressed_tensors(self, name: str) -> Layer:
        weights = _scheme(self.settings, name)
        n, k = (int(size) for size in self.files.array(f"{name}.weight_shape"))
        size = int(weights.get("group_size") or -1)
        stored = self.files.entry(f"{name}.weight_scale").shape
        groups = stored[1] if len(stored) > 1 else 1
        return Layer(
            files=self.files,
            name=name,
            method="compressed-tensors",
            k=k,
            n=n,
            bits=int(weights["num_bits"]),
            group_size=size,
            symmetric=f"{name}.weight_zero_point" not in self.files,
            plus_one=False,
            groups=self._groups(f"{name}.weight_g_idx", k, size, groups),
        )

    def _groups(self, g_idx: str, k: int, size: int, groups: int) -> Array:
        if g_idx in self.files:
            entry = self.files.entry(g_idx)
            if entry.shape != (k,) or entry.dtype not in ("I32", "I64"):
                got = f"{entry.dtype} {entry.shape}"
                refuse(f"tensor {g_idx!r}", got, f"I32 or I64 ({k},)")
            stored = np.array(self.files.array(g_idx)).astype(np.int64)
            # compressed-tensors writes -1 everywhere where it means none.
            if not (stored == -1).all():
                if stored.min() < 0 or stored.max() >= groups:
                    got = f"{stored.min()} to {stored.max()}"
                    refuse(f"tensor {g_idx!r}", got, f"0 to {groups - 1}")
                return stored
        found = np.zeros(k, np.int64) if size == -1 else np.arange(k) // size
        if int(found[-1]) + 1 != groups:
            refuse(f"tensor {g_idx.rpartition('.')[0]!r}", f"{groups} groups", found[-1] + 1)
        return found


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Ranges of columns, 2^22 weights at most in each (32 MB of float64), or a single column."""
    step = max((1 << 22) // max(rows, 1), 1)
    for start in range(0, columns, step):
        yield slice(start, min(start + step, columns))


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Layer 2 before layer 10."""
    return [(0, int(s)) if s.isdigit() else (1, s) for s in re.split(r"(\d+)", name)]


def _settings(directory: Path) -> dict[str, Any]:
    config = directory / "config.json"
    if config.exists():
        values = read_json(config)
        # Models of several towers may have them where the language model's sizes are.
        inner = [values.get(key) for key in ("text_config", "llm_config", "language_config")]
        for place in (values, *inner):
            for key in ("quantization_config", "compression_config"):
                if isinstance(place, dict) and place.get(key):
                    return dict(place[key])
    own = directory / "quantize_config.json"
    return read_json(own) if own.exists() else {}


def _of_layer(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """With GPTQModel's rules for single layers."""
    for rule, changed in (settings.get("dynamic") or {}).items():
        if not rule.startswith("-:") and _matches(rule.removeprefix("+:"), name):
            return {**settings, **changed}
    return settings


def _matches(expression: str, name: str) -> bool:
    try:
        return matches(expression, name)
    except ValueError as error:
        refuse("quantization_config", f"the expression {expression!r} ({error})", "regular ones")


def _scheme(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The weights' settings of the config group that names the layer most precisely."""
    found = []
    for group in settings["config_groups"].values():
        for target in group["targets"]:
            if target == name:
                found.append((0, target, group))
            elif target.startswith("re:") and _matches(target[3:], name):
                found.append((1, target, group))
            elif target == "Linear":
                found.append((2, target, group))
    if not found:
        refuse("config_groups", f"no group for {name!r}", "one")
    best = min(entry[:2] for entry in found)
    return dict([group for *rank, group in found if tuple(rank) == best][-1]["weights"])
