# SPDX-License-Identifier: Apache-2.0
"""A compressed-tensors layer of format "pack-quantized" from disk: words along K in weight_packed,
along N in weight_zero_point, and everything has N before K."""

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
from padmarlin.formats.compressed_tensors import G_IDX_UNSET, compressed_tensors_layer
from padmarlin.layout import div_up
from padmarlin.weight import PaddedWeight


@dataclass(frozen=True)
class _Layer:
    """The tensors of a (k, n) layer, checked against each other and the scheme."""

    scheme: Scheme
    k: int
    n: int
    packed: StoredTensor  # (n, ceil(k * bits / 32))
    scale: StoredTensor  # (n, groups)
    zero_point: StoredTensor | None  # (ceil(n * bits / 32), groups)
    g_idx: StoredTensor | None  # (k)


def compressed_tensors_shape(request: Request) -> tuple[int, int]:
    """(k, n)."""
    layer = _checked_layer(request)
    return layer.k, layer.n


def load_compressed_tensors(request: Request) -> PaddedWeight:
    layer = _checked_layer(request)
    scheme = layer.scheme
    per_word = 32 // scheme.bits
    rows = Span(request.bounds("k", layer.k), per_word)
    columns = Span(request.bounds("n", layer.n), per_word if layer.zero_point is not None else 1)
    g_idx = None
    if layer.g_idx is not None:
        g_idx = row_groups(layer.g_idx, rows, layer.k, layer.scale.shape[1], unset=G_IDX_UNSET)
    groups = groups_of(rows, scheme.group_size, layer.k, g_idx)
    zero_point = layer.zero_point
    part = compressed_tensors_layer(
        layer.packed.read(columns.codes, rows.words).to(request.device),
        layer.scale.read(columns.codes, groups).to(request.device),
        None if zero_point is None else zero_point.read(columns.words, groups).to(request.device),
        g_idx,
        bits=scheme.bits,
        group_size=scheme.group_size,
        sym=scheme.sym,
    )
    return repack(part, cut_of(rows, columns), request.dtype)


def _checked_layer(request: Request) -> _Layer:
    scheme = request.scheme
    request.check_quantized("weight_packed")
    n, k = _stored_shape(request)
    bits, groups = scheme.bits, group_count(k, scheme.group_size)
    packed, scale = request.tensor("weight_packed"), request.tensor("weight_scale")
    words = f"(n, ceil(k * bits / 32)) at weight_shape = ({n}, {k}), bits = {bits}"
    packed.check(CODES, (n, div_up(k * bits, 32)), words)
    scale.check(SCALES, (n, groups), f"(n, groups) at k = {k}, group_size = {scheme.group_size}")
    zero_point = None
    if not scheme.sym or request.has("weight_zero_point"):
        zero_point = request.tensor("weight_zero_point")
        words = f"(ceil(n * bits / 32), groups) at n = {n}, bits = {bits}"
        zero_point.check(CODES, (div_up(n * bits, 32), groups), words)
    g_idx = None
    if request.has("weight_g_idx") or (scheme.act_order and groups > 1):
        g_idx = request.tensor("weight_g_idx")
        g_idx.check(GROUPS, (k,), "(k,)")
    return _Layer(scheme, k, n, packed, scale, zero_point, g_idx)


def _stored_shape(request: Request) -> tuple[int, int]:
    """(n, k): packing hides both."""
    stored = request.tensor("weight_shape")
    stored.check(GROUPS, (2,), "(n, k)")
    n, k = (int(size) for size in stored.read((0, 2)))
    if not (0 < n < 2**31 and 0 < k < 2**31):
        refuse(f"tensor {stored.name!r}", f"({n}, {k})", "(n, k), both from 1 to 2^31 - 1")
    return n, k
