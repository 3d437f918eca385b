# SPDX-License-Identifier: Apache-2.0
"""A GPTQ layer from disk: which words, columns and groups a rank needs, and nothing else.

Words hold 32 / bits neighbours, along K in qweight and along N in qzeros. A rank's first row or
column may stand inside a word; so whole words around its part are read, and a Cut says where in
them the part lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from padmarlin.checkpoint.refuse import refuse
from padmarlin.checkpoint.request import Request
from padmarlin.checkpoint.settings import Settings
from padmarlin.checkpoint.tensors import Range, StoredTensor
from padmarlin.formats.common import Cut
from padmarlin.formats.gptq import repack_gptq_cut
from padmarlin.layout import div_up
from padmarlin.partition import groups_touched, is_in_order
from padmarlin.weight import PaddedWeight

_CODES = ("I32",)
_GROUPS = ("I32", "I64")
_SCALES = ("F16", "BF16", "F32")


@dataclass(frozen=True)
class _Layer:
    """The tensors of a layer, checked against each other and the settings."""

    qweight: StoredTensor  # (ceil(k * bits / 32), n)
    scales: StoredTensor  # (groups, n)
    qzeros: StoredTensor  # (groups, ceil(n * bits / 32))
    g_idx: StoredTensor | None  # (k)
    k: int
    n: int
    bits: int
    group_size: int
    sym: bool | None
    checkpoint_format: str

    @property
    def groups(self) -> int:
        return self.scales.shape[0]


def load_gptq(request: Request) -> PaddedWeight:
    layer = _checked_layer(request)
    rows, columns = request.bounds("k", layer.k), request.bounds("n", layer.n)
    row_words, column_words = (_words(part, layer.bits) for part in (rows, columns))
    # The part of the matrix that those words hold up to the rank's last row and column.
    per_word = 32 // layer.bits
    held_rows = (row_words[0] * per_word, rows[1])
    held_columns = (column_words[0] * per_word, columns[1])

    g_idx = None if layer.g_idx is None else layer.g_idx.read(held_rows)
    groups = _groups(layer, held_rows, g_idx)
    tensors = (
        layer.qweight.read(row_words, held_columns),
        layer.scales.read(groups, held_columns),
        layer.qzeros.read(groups, column_words),
    )
    cut = Cut(
        k_start=rows[0],
        rows=_relative(rows, held_rows),
        columns=_relative(columns, held_columns),
        whole_tables=False,
        k_given=held_rows[1] - held_rows[0],
    )
    return repack_gptq_cut(
        *(tensor.to(request.device) for tensor in tensors),
        g_idx,
        cut,
        bits=layer.bits,
        group_size=layer.group_size,
        sym=layer.sym,
        checkpoint_format=layer.checkpoint_format,
        dtype=request.dtype,
    )


def _words(part: Range, bits: int) -> Range:
    """The words that hold a range of codes."""
    per_word = 32 // bits
    return part[0] // per_word, div_up(part[1], per_word)


def _relative(part: Range, held: Range) -> Range:
    return part[0] - held[0], part[1] - held[0]


def _groups(layer: _Layer, rows: Range, g_idx: Tensor | None) -> Range:
    """The rows of the tables to read: with act-order all of them."""
    start, stop = rows
    if g_idx is not None and not is_in_order(g_idx.to(torch.int64), layer.group_size, start):
        return 0, layer.groups
    first, last = groups_touched(stop - start, layer.group_size, start)
    return first, last + 1


def _checked_layer(request: Request) -> _Layer:
    settings = request.settings
    bits, group_size, checkpoint_format = _checked_settings(settings)
    qweight, scales, qzeros = (request.tensor(name) for name in ("qweight", "scales", "qzeros"))
    qweight.check(_CODES, (None, None), "(ceil(k * bits / 32), n)")
    n = qweight.shape[1]
    scales.check(_SCALES, (None, n), "(groups, n)")
    words = f"(groups, ceil(n * bits / 32)) at bits = {bits}"
    qzeros.check(_CODES, (scales.shape[0], div_up(n * bits, 32)), words)

    g_idx = request.tensor("g_idx") if request.has("g_idx") else None
    if g_idx is not None:
        g_idx.check(_GROUPS, (None,), "(k,)")
    elif settings.flag("desc_act") and scales.shape[0] > 1:
        request.tensor("g_idx")  # refuses: without it the order of the rows is unknown
    k = g_idx.shape[0] if g_idx is not None else _k_without_g_idx(qweight, scales, bits, group_size)
    qweight.check(_CODES, (div_up(k * bits, 32), n), f"(ceil(k * bits / 32), n) at k = {k}")
    groups = groups_touched(k, group_size)[1] + 1
    scales.check(_SCALES, (groups, n), f"(groups, n) at k = {k}, group_size = {group_size}")
    return _Layer(
        qweight,
        scales,
        qzeros,
        g_idx,
        k,
        n,
        bits,
        group_size,
        settings.flag("sym"),
        checkpoint_format,
    )


def _checked_settings(settings: Settings) -> tuple[int, int, str]:
    bits = settings.integer("bits")
    if bits not in (4, 8):
        settings.refuse("bits", "4 or 8")
    group_size = settings.integer("group_size")
    if group_size < -1 or group_size == 0:
        settings.refuse("group_size", "a positive integer, or -1 for one group")
    if settings.text("pack_dtype", default="int32") != "int32":
        settings.refuse("pack_dtype", "'int32'")
    # AutoGPTQ wrote v1 without saying so; GPTQModel says it, newer versions under both names.
    checkpoint_format = settings.text("checkpoint_format", "format", default="gptq")
    if checkpoint_format not in ("gptq", "gptq_v2"):
        key = "checkpoint_format" if settings.values.get("checkpoint_format") else "format"
        settings.refuse(key, "'gptq' or 'gptq_v2'", "requantize or convert to one of these")
    return bits, group_size, checkpoint_format


def _k_without_g_idx(
    qweight: StoredTensor, scales: StoredTensor, bits: int, group_size: int
) -> int:
    """K from the number of words, or where that cannot be, from the number of groups.

    The last word may be partly filled; but only a writer whose K is no multiple of 32 / bits does
    that, and it is seen if a full word would begin one more group.
    """
    per_word, words = 32 // bits, qweight.shape[0]
    fitting = [
        k
        for k in range(words * per_word, (words - 1) * per_word, -1)
        if groups_touched(k, group_size)[1] + 1 == scales.shape[0]
    ]
    if fitting and (fitting[0] == words * per_word or len(fitting) == 1):
        return fitting[0]
    got = f"{scales.shape[0]} groups of {group_size} in {words} words of {per_word} rows, no g_idx"
    expected = f"one k for them; {min(fitting)} to {max(fitting)} fit" if fitting else "a k for them"
    remedy = "check group_size and bits, or call padmarlin.repack_gptq with k=..."
    refuse(f"tensor {scales.name!r}", got, expected, remedy)
