# SPDX-License-Identifier: Apache-2.0
"""The bits behind the last code of words that are not full: they mean nothing, but the files have
them, and what is unpadded is to have the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from padmarlin.convert.axis import Array
from padmarlin.convert.layer import Coding, Layer
from padmarlin.convert.record import decode_bits, encode_bits
from padmarlin.convert.stored import StoredTensor
from padmarlin.models.layers import Axis


def fillings(layer: Layer, axis: Axis) -> dict[str, str]:
    """By tensor: its last words along `axis`, where taking them apart and together again would
    change them."""
    found = {}
    for tensor, dim in _partly_filled(layer, axis):
        last = _last(tensor.read(), dim)
        if not np.array_equal(last, _cleared(last, dim, layer, axis, tensor)):
            found[tensor.name] = encode_bits(last)
    return found


def refilled(
    words: Array, dim: int, coding: Coding, count: int, is_zeros: bool, text: str
) -> Array:
    """`words` of `count` codes along `dim`, with the filling of `text` if it was about them: after
    another quantization it is not."""
    last = _last(words, dim)
    stated = decode_bits(text, last)
    if np.array_equal(_clear(stated, dim, coding, count, is_zeros), last):
        words = words.copy()
        _last(words, dim)[...] = stated
    return words


def _partly_filled(layer: Layer, axis: Axis) -> Iterator[tuple[StoredTensor, int]]:
    if layer.coding.method == "plain" or getattr(layer, axis) % layer.coding.packing.per_word == 0:
        return
    for suffix, place in layer.places.items():
        if place.packed == axis and suffix in layer.tensors:
            yield layer.tensors[suffix], place.dims[axis]


def _last(words: Array, dim: int) -> Array:
    return np.moveaxis(words, dim, 0)[-1:]


def _cleared(last: Array, dim: int, layer: Layer, axis: Axis, tensor: StoredTensor) -> Array:
    is_zeros = layer.places[tensor.name.rpartition(".")[2]].kind == "zeros"
    return _clear(last, dim, layer.coding, getattr(layer, axis), is_zeros)


def _clear(last: Array, dim: int, coding: Coding, count: int, is_zeros: bool) -> Array:
    """Words (1, other) with the codes behind the last of `count` set to 0."""
    packing = coding.packing
    ones = packing.filled(1) if is_zeros and coding.zeros_minus_one else np.uint32(0)
    source = np.arange(count % packing.per_word)
    return packing.take(last + ones, 0, source, 0) - ones
