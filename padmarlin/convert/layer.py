# SPDX-License-Identifier: Apache-2.0
"""A linear layer's stored tensors, and what becomes of each when an axis of the layer changes.

All formats store the same things, codes, zero points and scales, and differ in where K and N lie
and along which of them codes are packed: a table of places tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from padmarlin.convert.axis import (
    AWQ_ORDER,
    NEW,
    Array,
    Packing,
    Source,
    along,
    nearest_source,
    take,
)
from padmarlin.convert.refuse import refuse
from padmarlin.convert.stored import StoredTensor
from padmarlin.models.layers import Axis

Method = Literal["gptq", "awq", "compressed-tensors", "plain"]
FLOATS = ("F16", "BF16", "F32")

_EXPONENT = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000}
"""All of these bits are set in infinities and NaNs, and in nothing else."""


@dataclass(frozen=True)
class Coding:
    """How the layer is quantized."""

    method: Method
    bits: int = 16
    group_size: int = -1
    # v1 GPTQ writers subtract one from every zero point, in one subtraction from the packed word.
    zeros_minus_one: bool = False

    @property
    def packing(self) -> Packing:
        return Packing(self.bits, AWQ_ORDER if self.method == "awq" else None)

    @property
    def midpoint(self) -> int:
        """The zero point of a symmetric layer, and of everything new."""
        return 1 << (self.bits - 1)

    def groups(self, k: int) -> int:
        return 1 if self.group_size == -1 else -(-k // self.group_size)

    def group_of(self, rows: Source) -> Source:
        """The group of rows in order."""
        return rows * 0 if self.group_size == -1 else rows // self.group_size


@dataclass(frozen=True)
class Place:
    """How a tensor of a format holds the matrix: the dimensions of K and N, and what is packed."""

    dims: dict[Axis, int]
    kind: Literal["codes", "zeros", "scales", "weight"]
    packed: Axis | None = None


_K_FIRST: dict[Axis, int] = {"k": 0, "n": 1}
_N_FIRST: dict[Axis, int] = {"n": 0, "k": 1}
_PLACES: dict[Method, dict[str, Place]] = {
    "gptq": {
        "qweight": Place(_K_FIRST, "codes", "k"),
        "qzeros": Place(_K_FIRST, "zeros", "n"),
        "scales": Place(_K_FIRST, "scales"),
    },
    "awq": {
        "qweight": Place(_K_FIRST, "codes", "n"),
        "qzeros": Place(_K_FIRST, "zeros", "n"),
        "scales": Place(_K_FIRST, "scales"),
    },
    "compressed-tensors": {
        "weight_packed": Place(_N_FIRST, "codes", "k"),
        "weight_zero_point": Place(_N_FIRST, "zeros", "n"),
        "weight_scale": Place(_N_FIRST, "scales"),
    },
    "plain": {"weight": Place(_N_FIRST, "weight")},
}
_GROUP_INDEX = ("g_idx", "weight_g_idx")
_OTHERS = ("bias", "weight_shape", *_GROUP_INDEX)
_OPTIONAL = ("weight_zero_point",)


@dataclass(frozen=True)
class Edit:
    """A tensor's new shape, and how its bits are made when their turn to be written comes."""

    shape: tuple[int, ...]
    compute: Callable[[], Array]


class Layer:
    """The tensors of a layer, checked against its coding and each other."""

    def __init__(
        self, name: str, tensors: Mapping[str, StoredTensor], coding: Coding, k: int | None = None
    ) -> None:
        """`k`: where the caller knows it; else a g_idx or the packed words tell."""
        self.name, self.tensors, self.coding = name, tensors, coding
        self.places = _PLACES[coding.method]
        for suffix in tensors:
            if suffix not in self.places and suffix not in _OTHERS:
                remedy = f"padmarlin knows {', '.join([*self.places, *_OTHERS])} of such layers"
                got = f"a tensor {suffix!r} in a layer stored as {coding.method}"
                refuse(f"layer {name!r}", got, "none but those", remedy)
        for suffix in self.places:
            if suffix not in tensors and suffix not in _OPTIONAL:
                remedy = "download the checkpoint again: its files are not complete"
                refuse(f"layer {name!r}", f"no tensor {suffix!r}", "one", remedy)
        self.n = self._size_n()
        self.k = self._size_k() if k is None else k
        self._check()

    @property
    def group_index(self) -> StoredTensor | None:
        return next((self.tensors[key] for key in _GROUP_INDEX if key in self.tensors), None)

    def row_groups(self) -> Source | None:
        """The group of each row where the files say it; compressed-tensors' -1 is nothing."""
        stored = self.group_index
        if stored is None:
            return None
        groups = _signed(stored).astype(np.int64)
        if stored.name.endswith("weight_g_idx") and (groups == -1).all():
            return None
        count = self.coding.groups(self.k)
        wrong = np.flatnonzero((groups < 0) | (groups >= count))
        if len(wrong):
            got = f"{groups[wrong[0]]} at row {wrong[0]}"
            refuse(stored.label, got, f"groups from 0 to {count - 1}")
        return groups

    def edits(self, axis: Axis, source: Source) -> dict[str, Edit]:
        """What becomes of every tensor that has the axis, by name. New rows and columns
        dequantize to exactly 0: their codes are zero points.

        A new column or group has the zero point 2^(bits-1), which symmetric engines take for
        granted and which no version of GPTQ shifts out of range. Its scale is its neighbour's:
        whatever a scale multiplies is 0, so that any finite one is exact; but an engine has
        accepted that one already, nothing divides by it in vain, and the largest of the layer,
        by which kernels choose how to dequantize, stays as it was.
        """
        found: dict[str, Edit] = {}
        for suffix, tensor in self.tensors.items():
            edit = self._edit(suffix, tensor, axis, source)
            if edit is not None:
                found[tensor.name] = edit
        return found

    def _edit(self, suffix: str, tensor: StoredTensor, axis: Axis, source: Source) -> Edit | None:
        place = self.places.get(suffix)
        if place is None:
            return self._edit_other(suffix, tensor, axis, source)
        dim, grouped = place.dims[axis], place.kind in ("zeros", "scales")
        if axis == "k" and grouped:
            source = self._group_source(source)
        length = len(source)
        if place.packed == axis:
            length = self.coding.packing.words(length)
        shape = tuple(length if i == dim else size for i, size in enumerate(tensor.shape))
        make = {
            "weight": lambda: take(tensor.read(), dim, source),
            "scales": lambda: take(self._finite(tensor, source), dim, nearest_source(source)),
            "zeros": lambda: self._new_zeros(tensor, place, axis, source),
            "codes": lambda: self._new_codes(tensor, place, axis, source),
        }[place.kind]
        return Edit(shape, make)

    def _edit_other(
        self, suffix: str, tensor: StoredTensor, axis: Axis, source: Source
    ) -> Edit | None:
        if suffix == "bias" and axis == "n":
            return Edit((len(source),), lambda: take(tensor.read(), 0, source))
        if suffix == "weight_shape":
            sizes = {"n": self.n, "k": self.k, axis: len(source)}
            shape = np.array([sizes["n"], sizes["k"]], np.uint64)
            return Edit((2,), lambda: shape.astype(_unsigned(tensor)))
        if suffix in _GROUP_INDEX and axis == "k":
            return Edit((len(source),), lambda: self._new_groups(tensor, source))
        return None

    def _group_source(self, source: Source) -> Source:
        """Where groups come from when the rows do from `source`: their order stays."""
        groups = np.arange(self.coding.groups(len(source)))
        return np.where(groups < self.coding.groups(self.k), groups, NEW)

    def _new_groups(self, tensor: StoredTensor, source: Source) -> Array:
        """A g_idx: new rows fill up the last group, which alone may be short, then new ones."""
        groups = take(tensor.read(), 0, source)
        rows = np.flatnonzero(source < 0)
        if self.row_groups() is None:
            groups[rows] = np.array(-1).astype(groups.dtype)
        else:
            groups[rows] = self.coding.group_of(rows)
        return groups

    def _new_zeros(self, tensor: StoredTensor, place: Place, axis: Axis, source: Source) -> Array:
        words = self._plain_zeros(tensor)
        dim, packing, middle = place.dims[axis], self.coding.packing, self.coding.midpoint
        if axis == place.packed:
            words = packing.take(words, dim, source, middle)
        else:
            words = take(words, dim, source)
            words[along(dim, np.flatnonzero(source < 0))] = packing.filled(middle)
        return words - packing.filled(1) if self.coding.zeros_minus_one else words

    def _new_codes(self, tensor: StoredTensor, place: Place, axis: Axis, source: Source) -> Array:
        words, packing, dim = tensor.read(), self.coding.packing, place.dims[axis]
        new = np.flatnonzero(source < 0)
        fill: Array | int = self.coding.midpoint
        if axis == "k" and len(new):
            fill = self._zero_points(new)
            fill = fill if place.dims["k"] == 0 else fill.T
        if axis == place.packed:
            return packing.take(words, dim, source, fill)
        taken = take(words, dim, source)
        words_of_new = (
            packing.filled(fill) if isinstance(fill, int) else packing.pack(fill, 1 - dim)
        )
        taken[along(dim, new)] = words_of_new
        return taken

    def _zero_points(self, rows: Source) -> Array:
        """The zero point of new rows in every column, as codes (rows, n)."""
        middle = np.uint8(self.coding.midpoint)
        groups = self.coding.group_of(rows)
        codes = np.full((len(rows), self.n), middle, np.uint8)
        known = groups < self.coding.groups(self.k)
        suffix = next((s for s, place in self.places.items() if place.kind == "zeros"), "")
        if suffix in self.tensors and known.any():
            dims = self.places[suffix].dims
            words = self._plain_zeros(self.tensors[suffix])
            zeros = self.coding.packing.unpack(words, dims["n"], self.n)
            codes[known] = (zeros if dims["k"] == 0 else zeros.T)[groups[known]]
        return codes

    def _plain_zeros(self, tensor: StoredTensor) -> Array:
        """Packed zero points as they are meant: the addition carries where the writer borrowed."""
        words = tensor.read()
        return words + self.coding.packing.filled(1) if self.coding.zeros_minus_one else words

    def _finite(self, tensor: StoredTensor, source: Source) -> Array:
        """Scales; where something new gets one of them, they must be numbers."""
        bits = tensor.read()
        if (source < 0).any():
            exponent = bits.dtype.type(_EXPONENT[tensor.dtype])
            wrong = np.argwhere((bits & exponent) == exponent)
            if len(wrong):
                remedy = "this layer computes nothing sensible: quantize or download it again"
                refuse(tensor.label, f"an infinity or NaN at {wrong[0].tolist()}", "scales", remedy)
        return bits

    def _size_n(self) -> int:
        suffix, place = next(
            (s, p) for s, p in self.places.items() if p.kind in ("scales", "weight")
        )
        tensor = self.tensors[suffix]
        if len(tensor.shape) != 2:
            refuse(tensor.label, f"the shape {tensor.shape}", "two dimensions")
        return tensor.shape[place.dims["n"]]

    def _size_k(self) -> int:
        if self.group_index is not None and len(self.group_index.shape) == 1:
            return self.group_index.shape[0]
        stated = self.tensors.get("weight_shape")
        if stated is not None and stated.shape == (2,):
            return int(stated.read()[1])
        suffix, place = next(
            (s, p) for s, p in self.places.items() if p.kind in ("codes", "weight")
        )
        tensor = self.tensors[suffix]
        size = tensor.shape[place.dims["k"]] if len(tensor.shape) == 2 else 0
        return size * self.coding.packing.per_word if place.packed == "k" else size

    def _check(self) -> None:
        """Every shape and dtype: what is written must not depend on what damage makes of them."""
        coding = self.coding
        for suffix, place in self.places.items():
            if suffix not in self.tensors:
                continue
            grouped = place.kind in ("zeros", "scales")
            sizes: dict[Axis, int] = {"k": coding.groups(self.k) if grouped else self.k}
            sizes["n"] = self.n
            if place.packed is not None:
                sizes[place.packed] = coding.packing.words(sizes[place.packed])
            expected = tuple(sizes[axis] for axis in sorted(sizes, key=place.dims.__getitem__))
            dtypes = FLOATS if place.kind in ("scales", "weight") else ("I32",)
            self._check_one(self.tensors[suffix], dtypes, expected)
        integers = ("I64", "I32")
        for suffix, size in (("weight_shape", 2), ("g_idx", self.k), ("weight_g_idx", self.k)):
            if suffix in self.tensors:
                self._check_one(self.tensors[suffix], integers, (size,))
        if "bias" in self.tensors:
            self._check_one(self.tensors["bias"], FLOATS, (self.n,))
        if "weight_shape" in self.tensors:
            stored = self.tensors["weight_shape"]
            stated = tuple(int(size) for size in stored.read())
            if stated != (self.n, self.k):
                refuse(stored.label, stated, f"{(self.n, self.k)} = (n, k)")

    def _check_one(
        self, tensor: StoredTensor, dtypes: tuple[str, ...], shape: tuple[int, ...]
    ) -> None:
        if tensor.shape != shape or tensor.dtype not in dtypes:
            coding = self.coding
            what = f"k = {self.k}, n = {self.n}, stored as {coding.method}"
            if coding.method != "plain":
                what += f" with {coding.bits} bits in groups of {coding.group_size}"
            expected = f"{' or '.join(dtypes)} {shape} at {what}"
            remedy = "check the checkpoint's files, its config.json and its quantization settings"
            refuse(tensor.label, f"{tensor.dtype} {tensor.shape}", expected, remedy)


def _unsigned(tensor: StoredTensor) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u8" if tensor.dtype == "I64" else "<u4")


def _signed(tensor: StoredTensor) -> np.ndarray[tuple[int, ...], np.dtype[np.signedinteger]]:
    return tensor.read().view("<i8" if tensor.dtype == "I64" else "<i4")
