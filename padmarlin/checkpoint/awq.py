# SPDX-License-Identifier: Apache-2.0
"""An AWQ layer of version "gemm" from disk: words along N, in qweight and in qzeros."""

from __future__ import annotations

from dataclasses import dataclass

from padmarlin.checkpoint.part import CODES, SCALES, Span, cut_of, group_count, groups_of
from padmarlin.checkpoint.request import Request
from padmarlin.checkpoint.scheme import Scheme
from padmarlin.checkpoint.tensors import StoredTensor
from padmarlin.formats.awq import awq_layer
from padmarlin.formats.common import repack
from padmarlin.layout import div_up
from padmarlin.weight import PaddedWeight

_PER_WORD = 8


@dataclass(frozen=True)
class _Layer:
    """The tensors of a (k, n) layer, checked against each other and the scheme."""

    scheme: Scheme
    k: int
    n: int
    qweight: StoredTensor  # (k, ceil(n / 8))
    scales: StoredTensor  # (groups, n)
    qzeros: StoredTensor  # (groups, ceil(n / 8))


def awq_shape(request: Request) -> tuple[int, int]:
    """(k, n)."""
    layer = _checked_layer(request)
    return layer.k, layer.n


def load_awq(request: Request) -> PaddedWeight:
    layer = _checked_layer(request)
    rows = Span(request.bounds("k", layer.k))
    columns = Span(request.bounds("n", layer.n), _PER_WORD)
    groups_read = groups_of(rows, layer.scheme.group_size, layer.k)
    part = awq_layer(
        layer.qweight.read(rows.words, columns.words).to(request.device),
        layer.scales.read(groups_read, columns.codes).to(request.device),
        layer.qzeros.read(groups_read, columns.words).to(request.device),
        group_size=layer.scheme.group_size,
        sym=layer.scheme.sym,
    )
    return repack(part, cut_of(rows, columns), request.dtype)


def _checked_layer(request: Request) -> _Layer:
    request.check_quantized("qweight")
    group_size = request.scheme.group_size
    qweight, scales, qzeros = (request.tensor(name) for name in ("qweight", "scales", "qzeros"))
    qweight.check(CODES, (None, None), "(k, ceil(n / 8))")
    k = qweight.shape[0]
    groups = group_count(k, group_size)
    scales.check(SCALES, (groups, None), f"(groups, n) at k = {k}, group_size = {group_size}")
    n = scales.shape[1]
    words = div_up(n, _PER_WORD)
    qweight.check(CODES, (k, words), f"(k, ceil(n / 8)) at n = {n}")
    qzeros.check(CODES, (groups, words), f"(groups, ceil(n / 8)) at n = {n}")
    return _Layer(request.scheme, k, n, qweight, scales, qzeros)
