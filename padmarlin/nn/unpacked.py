# SPDX-License-Identifier: Apache-2.0
"""A packed weight taken apart into codes, scales and zero points, and put together again: with
other columns, with the columns of several, or with its rows in the order of their groups."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from padmarlin.layout import (
    SLICE,
    TILE,
    Dequant,
    choose_dequant,
    code_order,
    field_base,
    pack_scales,
    pack_tiles,
    pack_zeros,
    round_up,
    symmetric_zero,
    tile_words,
    unpack_scales,
    unpack_tiles,
    unpack_zeros,
)
from padmarlin.partition import RowMap, build_row_map
from padmarlin.weight import PaddedWeight

_PIECE = 1 << 22
"""Codes handled at once, as int32: 16 MB."""


@dataclass(frozen=True, eq=False)
class Unpacked:
    """A weight by logical columns and padded rows.

    Attributes:
        codes: uint8 (padded_k, n). scales: (scale rows, n), in the weight's dtype.
        zeros: uint8 (scale rows, n), None: symmetric.
        slice_rows, columns, k, front_pad, group_size, bits: as in ``PaddedWeight``.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    slice_rows: Tensor
    columns: Tensor | None
    k: int
    front_pad: int
    group_size: int
    bits: int

    @classmethod
    def of(cls, weight: PaddedWeight) -> Unpacked:
        n, base = weight.n, field_base(weight.code_order)
        codes = torch.empty((weight.padded_k, n), dtype=torch.uint8, device=weight.device)
        step = max(_PIECE // (weight.padded_k * TILE), 1)
        for first in range(0, weight.qweight.shape[0], step):
            columns = slice(first * TILE, min((first + step) * TILE, n))
            piece = unpack_tiles(weight.qweight[first : first + step], weight.bits, base)
            codes[:, columns] = piece[:, : columns.stop - columns.start].to(torch.uint8)
        scales, zeros = _tables(weight)
        return cls(
            codes=codes,
            scales=scales[:, :n],
            zeros=None if zeros is None else zeros[:, :n],
            slice_rows=weight.slice_rows,
            columns=weight.columns,
            k=weight.k,
            front_pad=weight.front_pad,
            group_size=weight.group_size,
            bits=weight.bits,
        )

    def packed(self) -> PaddedWeight:
        n = self.scales.shape[1]
        # A padding column has scale 0, and codes that equal its zero point, as repack makes it.
        padding = (0, round_up(n, TILE) - n)
        filling = symmetric_zero(self.bits) if self.zeros is None else 0
        qweight = self._tiles(field_base(code_order(self.scales.dtype, self.bits)), filling)
        zeros = None if self.zeros is None else pad(self.zeros, padding)
        return _assembled(qweight, pad(self.scales, padding), zeros, self, n)

    def _tiles(self, base: int, filling: int) -> Tensor:
        padded_k, n = self.codes.shape
        n_tiles = round_up(n, TILE) // TILE
        tiles = torch.empty(
            (n_tiles, padded_k // TILE, tile_words(self.bits)),
            dtype=torch.int32,
            device=self.codes.device,
        )
        step = max(_PIECE // (padded_k * TILE), 1)
        for first in range(0, n_tiles, step):
            count = min(step, n_tiles - first)
            piece = self.codes[:, first * TILE : (first + count) * TILE].to(torch.int32)
            padding = count * TILE - piece.shape[1]
            piece = pad(piece, (0, padding), value=filling)
            tiles[first : first + count] = pack_tiles(piece, self.bits, base)
        return tiles

    def take_columns(self, index: Tensor) -> Unpacked:
        """The columns `index`, int64, in that order."""
        return replace(
            self,
            codes=self.codes.index_select(1, index),
            scales=self.scales.index_select(1, index),
            zeros=None if self.zeros is None else self.zeros.index_select(1, index),
        )

    # ---- act-order taken out of a whole weight

    def sorted_rows(self) -> Tensor | None:
        """The activation column of each row, rows sorted by group; None if they are in order, or if
        sorting them does not leave what a checkpoint without act-order has."""
        if self.columns is None:
            return None
        standing = self._standing()
        groups = self.slice_rows.repeat_interleave(SLICE)[standing].to(torch.int64)
        in_order = torch.arange(self.k, device=groups.device) // self.group_size
        order = self.columns[standing].to(torch.int64)
        trivial = torch.equal(order, torch.arange(self.k, device=order.device))
        return None if trivial or not torch.equal(groups, in_order) else order

    def cut_sorted(self, start: int, stop: int) -> Unpacked:
        """The rows [start, stop) of ``sorted_rows``, as a cut without act-order has them."""
        rows = build_row_map(stop - start, self.group_size, k_start=start)
        device = self.codes.device
        slice_rows = rows.slice_rows.to(device)
        groups = rows.groups.to(device)
        zeros = None if self.zeros is None else self.zeros.index_select(0, groups)
        return replace(
            self,
            codes=self._placed(self._standing()[start:stop], rows, zeros, slice_rows),
            scales=self.scales.index_select(0, groups),
            zeros=zeros,
            slice_rows=slice_rows,
            columns=None if rows.columns is None else rows.columns.to(device),
            k=rows.k,
            front_pad=rows.front_pad,
        )

    def _standing(self) -> Tensor:
        """The padded rows that are no padding; with ``columns``, they stand sorted by group."""
        assert self.columns is not None
        return (self.columns >= 0).nonzero().flatten()

    def _placed(
        self, standing: Tensor, rows: RowMap, zeros: Tensor | None, slice_rows: Tensor
    ) -> Tensor:
        """Some of the codes' rows where `rows` says; its padding equals the zero points."""
        source = rows.source_rows.to(standing.device, torch.int64)
        codes = self.codes.index_select(0, standing[source.clamp(min=0)])
        if zeros is None:
            codes[source < 0] = symmetric_zero(self.bits)
        else:
            of_rows = slice_rows.to(torch.int64).repeat_interleave(SLICE)
            codes[source < 0] = zeros[of_rows[source < 0]]
        return codes


def _tables(weight: PaddedWeight) -> tuple[Tensor, Tensor | None]:
    """Scales and zero points (scale rows, padded_n), these as uint8, in the order of columns."""
    scales = unpack_scales(weight.scales, weight.bits, weight.dequant)
    if weight.zeros is None:
        return scales, None
    zeros = unpack_zeros(weight.zeros, weight.dtype, weight.bits, weight.dequant)
    return scales, zeros.to(torch.uint8)


def _assembled(
    qweight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    rows: Unpacked | PaddedWeight,
    n: int,
) -> PaddedWeight:
    """A weight of tiles and of tables as `_tables` has them; its rows are those of `rows`."""
    dequant = choose_dequant(scales, rows.bits)
    if zeros is None and dequant == Dequant.WIDE:
        zeros = torch.full_like(scales, symmetric_zero(rows.bits), dtype=torch.uint8)
    return PaddedWeight(
        qweight=qweight,
        scales=pack_scales(scales, rows.bits, dequant),
        zeros=None if zeros is None else pack_zeros(zeros, scales.dtype, rows.bits, dequant),
        slice_rows=rows.slice_rows,
        columns=rows.columns,
        k=rows.k,
        n=n,
        bits=rows.bits,
        group_size=rows.group_size,
        front_pad=rows.front_pad,
        dequant=dequant,
        code_order=code_order(scales.dtype, rows.bits),
    )


# ---- several weights of one input


def same_rows(a: PaddedWeight, b: PaddedWeight) -> bool:
    """Whether both read the same activations in the same order, with groups alike."""
    tables = ((a.slice_rows, b.slice_rows), (a.columns, b.columns))
    return (
        (a.k, a.front_pad, a.group_size) == (b.k, b.front_pad, b.group_size)
        and a.scales.shape[0] == b.scales.shape[0]
        and all(x is y if x is None or y is None else torch.equal(x, y) for x, y in tables)
    )


def beside(weights: list[PaddedWeight]) -> PaddedWeight:
    """One weight of the columns of several, whose rows, bits and dtype are the same."""
    n = sum(weight.n for weight in weights)
    if all(weight.n % TILE == 0 for weight in weights[:-1]):
        # Whole tiles stand one behind the other as they are.
        qweight = torch.cat([weight.qweight for weight in weights])
        return _assembled(
            qweight, *_joined([_tables(w) for w in weights], weights[0]), weights[0], n
        )
    parts = [Unpacked.of(weight) for weight in weights]
    scales, zeros = _joined([(part.scales, part.zeros) for part in parts], weights[0])
    codes = torch.cat([part.codes for part in parts], dim=1)
    return replace(parts[0], codes=codes, scales=scales, zeros=zeros).packed()


def _joined(
    tables: list[tuple[Tensor, Tensor | None]], like: PaddedWeight
) -> tuple[Tensor, Tensor | None]:
    """The columns of several; those without zero points get symmetric ones if others have some."""
    scales = torch.cat([scales for scales, _ in tables], dim=1)
    if all(zeros is None for _, zeros in tables):
        return scales, None
    middle = symmetric_zero(like.bits)
    filled = [
        torch.full_like(scales, middle, dtype=torch.uint8) if zeros is None else zeros
        for scales, zeros in tables
    ]
    return scales, torch.cat(filled, dim=1)
