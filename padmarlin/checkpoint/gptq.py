# SPDX-License-Identifier: Apache-2.0
"""A GPTQ layer from disk: the words, columns and groups that a rank needs.

Words hold 32 / bits neighbours, along K in qweight and along N in qzeros. A rank's first row or
column may stand inside a word; so whole words around its part are read, and a Cut says where in
them the part lies.
"""

from __future__ import annotations

from dataclasses import dataclass

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
class _Coding:
    """How the tensors are to be read, from the settings."""

    bits: int
    group_size: int
    sym: bool | None
    desc_act: bool
    checkpoint_format: str

    @property
    def per_word(self) -> int:
        return 32 // self.bits

    def words(self, part: Range) -> Range:
        """The words that hold a range of codes."""
        return part[0] // self.per_word, div_up(part[1], self.per_word)

    def groups(self, rows: Range) -> Range:
        """The groups of a range of rows, without act-order."""
        first, last = groups_touched(rows[1] - rows[0], self.group_size, rows[0])
        return first, last + 1


@dataclass(frozen=True)
class _Layer:
    """The tensors of a (k, n) layer, checked against each other and the settings."""

    coding: _Coding
    k: int
    n: int
    qweight: StoredTensor  # (ceil(k * bits / 32), n)
    scales: StoredTensor  # (groups, n)
    qzeros: StoredTensor  # (groups, ceil(n * bits / 32))
    g_idx: StoredTensor | None  # (k)


def load_gptq(request: Request) -> PaddedWeight:
    layer = _checked_layer(request)
    coding = layer.coding
    rows, columns = request.bounds("k", layer.k), request.bounds("n", layer.n)
    row_words, column_words = coding.words(rows), coding.words(columns)
    # What is read begins with the first code of a word and ends with the rank's last one.
    read_rows = (row_words[0] * coding.per_word, rows[1])
    read_columns = (column_words[0] * coding.per_word, columns[1])

    g_idx = _row_groups(layer, read_rows)
    in_order = g_idx is None or is_in_order(g_idx.long(), coding.group_size, read_rows[0])
    # With act-order a rank's rows may be of any group, and the tables stay whole.
    groups = coding.groups(read_rows if in_order else (0, layer.k))
    return repack_gptq_cut(
        layer.qweight.read(row_words, read_columns).to(request.device),
        layer.scales.read(groups, read_columns).to(request.device),
        layer.qzeros.read(groups, column_words).to(request.device),
        g_idx,
        Cut(
            k_start=rows[0],
            rows=_within(rows, read_rows),
            columns=_within(columns, read_columns),
            whole_tables=False,
            k_given=read_rows[1] - read_rows[0],
        ),
        bits=coding.bits,
        group_size=coding.group_size,
        sym=coding.sym,
        checkpoint_format=coding.checkpoint_format,
        dtype=request.dtype,
    )


def _row_groups(layer: _Layer, rows: Range) -> Tensor | None:
    """The group of each of those rows, as g_idx has them.

    All of g_idx is read, a thousandth of a weight, so that every rank refuses a damaged one: a rank
    that alone gave up would leave the others waiting for it.
    """
    if layer.g_idx is None:
        return None
    g_idx = layer.g_idx.read((0, layer.k))
    groups = layer.scales.shape[0]
    wrong = ((g_idx < 0) | (g_idx >= groups)).nonzero()
    if wrong.numel():
        row = int(wrong[0])
        expected = f"0 to {groups - 1}, the groups that there are"
        refuse(f"tensor {layer.g_idx.name!r}", f"{int(g_idx[row])} at row {row}", expected)
    return g_idx[slice(*rows)]


def _within(part: Range, whole: Range) -> Range:
    return part[0] - whole[0], part[1] - whole[0]


def _checked_coding(settings: Settings) -> _Coding:
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
    desc_act = settings.flag("desc_act") or False
    return _Coding(bits, group_size, settings.flag("sym"), desc_act, checkpoint_format)


def _checked_layer(request: Request) -> _Layer:
    coding = _checked_coding(request.settings)
    qweight, scales, qzeros = (request.tensor(name) for name in ("qweight", "scales", "qzeros"))
    qweight.check(_CODES, (None, None), "(ceil(k * bits / 32), n)")
    n = qweight.shape[1]
    scales.check(_SCALES, (None, n), "(groups, n)")
    g_idx = request.tensor("g_idx") if _needs_g_idx(request, coding, scales) else None
    if g_idx is not None:
        g_idx.check(_GROUPS, (None,), "(k,)")
    k = _k_of_words(coding, qweight, scales) if g_idx is None else g_idx.shape[0]

    words, groups = coding.words((0, k))[1], coding.groups((0, k))[1]
    qweight.check(_CODES, (words, n), f"(ceil(k * bits / 32), n) at k = {k}, bits = {coding.bits}")
    scales.check(_SCALES, (groups, n), f"(groups, n) at k = {k}, group_size = {coding.group_size}")
    zero_words = coding.words((0, n))[1]
    qzeros.check(_CODES, (groups, zero_words), f"(groups, ceil(n * bits / 32)) at n = {n}")
    return _Layer(coding, k, n, qweight, scales, qzeros, g_idx)


def _needs_g_idx(request: Request, coding: _Coding, scales: StoredTensor) -> bool:
    """Whether there is one, or must be: act-order among several groups rests on it."""
    return request.has("g_idx") or (coding.desc_act and scales.shape[0] > 1)


def _k_of_words(coding: _Coding, qweight: StoredTensor, scales: StoredTensor) -> int:
    """K where no g_idx tells it: whole words, unless the number of groups leaves only another.

    Writers of GPTQ leave out g_idx at most where K is a multiple of 32, so that words are full.
    """
    words, groups = qweight.shape[0], scales.shape[0]
    largest = words * coding.per_word
    fitting = [
        k
        for k in range(largest, largest - coding.per_word, -1)
        if coding.groups((0, k))[1] == groups
    ]
    if largest in fitting or len(fitting) == 1:
        return fitting[0]
    got = f"{groups} groups of {coding.group_size} for {words} words of {coding.per_word} rows"
    found = f" ({fitting[-1]} to {fitting[0]} fit)" if fitting else " (none fits)"
    remedy = "check bits and group_size, or call padmarlin.repack_gptq with k=..."
    refuse(f"tensor {scales.name!r}", got, f"a g_idx, or one k that fits{found}", remedy)
