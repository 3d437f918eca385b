# SPDX-License-Identifier: Apache-2.0
"""A GPTQ layer from disk: words along K in qweight, along N in qzeros."""

from __future__ import annotations

from dataclasses import dataclass

from padmarlin.checkpoint.part import (
    CODES,
    GROUPS,
    SCALES,
    Span,
    cut_of,
    group_count,
    groups_of,
    row_groups,
)
from padmarlin.checkpoint.refuse import refuse
from padmarlin.checkpoint.request import Request
from padmarlin.checkpoint.scheme import Scheme
from padmarlin.checkpoint.tensors import StoredTensor
from padmarlin.formats.common import repack
from padmarlin.formats.gptq import gptq_layer
from padmarlin.layout import div_up
from padmarlin.weight import PaddedWeight


@dataclass(frozen=True)
class _Layer:
    """The tensors of a (k, n) layer, checked against each other and the scheme."""

    scheme: Scheme
    k: int
    n: int
    qweight: StoredTensor  # (ceil(k * bits / 32), n)
    scales: StoredTensor  # (groups, n)
    qzeros: StoredTensor  # (groups, ceil(n * bits / 32))
    g_idx: StoredTensor | None  # (k)


def gptq_shape(request: Request) -> tuple[int, int]:
    """(k, n)."""
    layer = _checked_layer(request)
    return layer.k, layer.n


def load_gptq(request: Request) -> PaddedWeight:
    layer = _checked_layer(request)
    scheme = layer.scheme
    per_word = 32 // scheme.bits
    rows = Span(request.bounds("k", layer.k), per_word)
    columns = Span(request.bounds("n", layer.n), per_word)
    g_idx = None
    if layer.g_idx is not None:
        g_idx = row_groups(layer.g_idx, rows, layer.k, layer.scales.shape[0])
    groups = groups_of(rows, scheme.group_size, layer.k, g_idx)
    part = gptq_layer(
        layer.qweight.read(rows.words, columns.codes).to(request.device),
        layer.scales.read(groups, columns.codes).to(request.device),
        layer.qzeros.read(groups, columns.words).to(request.device),
        g_idx,
        bits=scheme.bits,
        group_size=scheme.group_size,
        sym=scheme.sym,
        checkpoint_format="gptq" if scheme.zeros_minus_one else "gptq_v2",
    )
    return repack(part, cut_of(rows, columns), request.dtype)


def _checked_layer(request: Request) -> _Layer:
    request.check_quantized("qweight")
    scheme = request.scheme
    qweight, scales, qzeros = (request.tensor(name) for name in ("qweight", "scales", "qzeros"))
    qweight.check(CODES, (None, None), "(ceil(k * bits / 32), n)")
    n = qweight.shape[1]
    scales.check(SCALES, (None, n), "(groups, n)")
    g_idx = request.tensor("g_idx") if _needs_g_idx(request, scheme, scales) else None
    if g_idx is not None:
        g_idx.check(GROUPS, (None,), "(k,)")
    k = _k_of_words(scheme, qweight, scales) if g_idx is None else g_idx.shape[0]

    words, groups = div_up(k * scheme.bits, 32), group_count(k, scheme.group_size)
    qweight.check(CODES, (words, n), f"(ceil(k * bits / 32), n) at k = {k}, bits = {scheme.bits}")
    scales.check(SCALES, (groups, n), f"(groups, n) at k = {k}, group_size = {scheme.group_size}")
    zero_words = div_up(n * scheme.bits, 32)
    qzeros.check(CODES, (groups, zero_words), f"(groups, ceil(n * bits / 32)) at n = {n}")
    return _Layer(scheme, k, n, qweight, scales, qzeros, g_idx)


def _needs_g_idx(request: Request, scheme: Scheme, scales: StoredTensor) -> bool:
    """Whether there is one, or must be: act-order among several groups rests on it."""
    return request.has("g_idx") or (scheme.act_order and scales.shape[0] > 1)


def _k_of_words(scheme: Scheme, qweight: StoredTensor, scales: StoredTensor) -> int:
    """K where no g_idx tells it: whole words, unless the number of groups leaves only another.

    Writers of GPTQ leave out g_idx at most where K is a multiple of 32, so that words are full.
    """
    words, groups, per_word = qweight.shape[0], scales.shape[0], 32 // scheme.bits
    largest = words * per_word
    fitting = [
        k
        for k in range(largest, largest - per_word, -1)
        if group_count(k, scheme.group_size) == groups
    ]
    if largest in fitting or len(fitting) == 1:
        return fitting[0]
    got = f"{groups} groups of {scheme.group_size} for {words} words of {per_word} rows"
    found = f" ({fitting[-1]} to {fitting[0]} fit)" if fitting else " (none fits)"
    remedy = "check bits and group_size, or call padmarlin.repack_gptq with k=..."
    refuse(f"tensor {scales.name!r}", got, f"a g_idx, or one k that fits{found}", remedy)
