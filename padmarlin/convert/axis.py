# SPDX-License-Identifier: Apache-2.0
"""Moving along one axis of stored tensors: padding, cutting and permuting are one operation.

A *source* says for each new position which old one it comes from, -1: none, it is new. Tensors
hold unsigned integers throughout: floats travel as their bits, and a 0 is a 0 in every dtype.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.unsignedinteger]
Source = NDArray[np.int64]

NEW = -1
_BLOCK_BYTES = 2**25
"""Codes are taken apart in blocks of about this size, so that memory stays near a tensor's own."""


def padding_source(size: int, padded: int, parts: int = 1) -> Source:
    """Each of `parts` neighbours of `size` grows to `padded`, new positions at its end."""
    source = np.full((parts, padded), NEW, dtype=np.int64)
    source[:, :size] = np.arange(parts * size).reshape(parts, size)
    return source.reshape(-1)


def cutting_source(size: int, padded: int, parts: int = 1) -> Source:
    """The inverse of `padding_source`."""
    return np.arange(parts * padded).reshape(parts, padded)[:, :size].reshape(-1)


def nearest_source(source: Source) -> Source:
    """New positions come from what stands before them."""
    places = np.where(source >= 0, np.arange(len(source)), 0)
    return source[np.maximum.accumulate(places)]


def take(array: Array, axis: int, source: Source) -> Array:
    """The array with `source` applied to `axis`; new positions are 0."""
    shape = list(array.shape)
    shape[axis] = len(source)
    taken = np.zeros(shape, array.dtype)
    # Runs are copied as wholes; only a permutation has many.
    breaks = np.flatnonzero(np.diff(source) != np.where(source[:-1] >= 0, 1, 0)) + 1
    if len(breaks) > 64:
        known = np.flatnonzero(source >= 0)
        taken[along(axis, known)] = np.take(array, source[known], axis)
        return taken
    for run in np.split(np.arange(len(source)), breaks):
        first = int(source[run[0]]) if len(run) else NEW
        if first >= 0:
            new = slice(int(run[0]), int(run[-1]) + 1)
            taken[along(axis, new)] = array[along(axis, slice(first, first + len(run)))]
    return taken


def along(axis: int, index: slice | Source) -> tuple[slice | Source, ...]:
    """The subscript of positions along an axis."""
    return (*[slice(None)] * axis, index)


class Packing:
    """Codes of `bits` in 32-bit words along an axis; the code of each place has its own shift."""

    def __init__(self, bits: int, order: tuple[int, ...] | None = None) -> None:
        self.bits = bits
        self.per_word = 32 // bits
        places = order or tuple(range(self.per_word))
        self._shifts = [np.uint32(bits * place) for place in places]
        self._mask = np.uint32(2**bits - 1)

    def words(self, codes: int) -> int:
        """How many words hold that many codes."""
        return -(-codes // self.per_word)

    def filled(self, code: int) -> np.uint32:
        """A word of equal codes."""
        return np.uint32(sum(code << (self.bits * place) for place in range(self.per_word)))

    def unpack(self, words: Array, axis: int, count: int) -> Array:
        """The first `count` codes along `axis`, as bytes."""
        moved = np.moveaxis(words, axis, 0)
        codes = np.empty((len(moved), self.per_word, *moved.shape[1:]), np.uint8)
        for place, shift in enumerate(self._shifts):
            codes[:, place] = (moved >> shift) & self._mask
        return np.moveaxis(codes.reshape(-1, *moved.shape[1:])[:count], 0, axis)

    def pack(self, codes: Array, axis: int) -> Array:
        """The inverse of `unpack`; places after the last code are 0."""
        moved = np.moveaxis(codes, axis, 0)
        words = np.zeros((self.words(len(moved)), *moved.shape[1:]), np.uint32)
        for place, shift in enumerate(self._shifts):
            part = moved[place :: self.per_word]
            words[: len(part)] |= part.astype(np.uint32) << shift
        return np.ascontiguousarray(np.moveaxis(words, 0, axis))

    def take(self, words: Array, axis: int, source: Source, new: Array | int) -> Array:
        """`source` applied to the packed axis of a matrix. `new`: the codes of new positions, in
        their order along that axis, or one code for all of them.

        Words whose codes stay together are copied; the others are put together code by code.
        """
        per_word, count = self.per_word, self.words(len(source))
        padded = np.full(count * per_word, NEW, dtype=np.int64)
        padded[: len(source)] = source
        by_word = padded.reshape(count, per_word)
        first = by_word[:, 0]
        whole = (by_word == first[:, None] + np.arange(per_word)).all(1)
        whole &= (first >= 0) & (first % per_word == 0)
        taken = take(words, axis, np.where(whole, first // per_word, NEW))
        broken = np.flatnonzero(~whole)
        if len(broken):
            self._rebuild(words, axis, source, new, taken, broken)
        return taken

    def _rebuild(
        self,
        words: Array,
        axis: int,
        source: Source,
        new: Array | int,
        taken: Array,
        broken: Source,
    ) -> None:
        """Writes the words `broken` of `taken`."""
        old, out = np.moveaxis(words, axis, 0), np.moveaxis(taken, axis, 0)
        fresh = new if isinstance(new, int) else np.moveaxis(new, axis, 0)
        number = np.cumsum(source < 0) - 1  # of each new position among the new ones
        columns = max(_BLOCK_BYTES // (4 * len(broken)), 1)
        for start in range(0, out.shape[1], columns):
            block = slice(start, start + columns)
            built = np.zeros((len(broken), *out[:1, block].shape[1:]), np.uint32)
            for place, shift in enumerate(self._shifts):
                at = broken * self.per_word + place
                there = np.flatnonzero(at < len(source))
                at = at[there]
                known = source[at] >= 0
                origin = source[at[known]]
                shifts = np.array(self._shifts)[origin % self.per_word][:, None]
                codes = (old[origin // self.per_word, block] >> shifts) & self._mask
                built[there[known]] |= codes << shift
                added = there[~known]
                if isinstance(fresh, int):
                    built[added] |= np.uint32(fresh) << shift
                else:
                    built[added] |= fresh[number[at[~known]], block].astype(np.uint32) << shift
            out[broken, block] = built


AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Nibble of each column of a word's eight."""
