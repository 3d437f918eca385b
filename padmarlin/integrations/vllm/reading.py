# SPDX-License-Identifier: Apache-2.0
"""What a rank keeps of a checkpoint's tensors, and the weight that is made of it. No vLLM here.

A rank keeps, for its rows and all of its columns (those of q, k, v side by side):

    words   int32 (ceil(k / per word), n)   GPTQ's packing, the rank's first row first
    scales  fp32 (groups, n)                as precise as any checkpoint's
    zeros   uint8 (groups, n)               plain zero points
    g_idx   int32 (parts, k)                act-order only: group of each row, one per fused matrix

`groups` are all that its rows touch, those included that it shares with the neighbouring ranks;
with act-order all of the matrix's, which g_idx counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from padmarlin.errors import refusal
from padmarlin.formats import repack_gptq
from padmarlin.formats.gptq import plain_zeros
from padmarlin.integrations.vllm.words import Range, cut_words, pack
from padmarlin.layout import div_up, symmetric_zero
from padmarlin.packing import Packing, held, read_zeros
from padmarlin.partition import groups_touched
from padmarlin.weight import PaddedWeight

UNSET = -1
"""What g_idx holds until it is loaded; compressed-tensors writes it where nothing is reordered."""


_SAYS_SYMMETRIC = {
    Packing.GPTQ: "sym is true",
    Packing.AWQ: "zero_point is false",
    Packing.COMPRESSED_TENSORS: "symmetric is true",
}


@dataclass(frozen=True)
class Coding:
    """How a layer's tensors are to be read."""

    packing: Packing
    bits: int
    group_size: int
    sym: bool
    act_order: bool
    checkpoint_format: str = "gptq_v2"  # GPTQ: "gptq" holds zero points minus one

    @property
    def per_word(self) -> int:
        return 32 // self.bits

    @property
    def axes(self) -> tuple[int, int]:
        """(axis of K, axis of N) of all of the checkpoint's tensors."""
        return (1, 0) if self.packing == Packing.COMPRESSED_TENSORS else (0, 1)


@dataclass(frozen=True)
class Rank:
    """The rows of a (full_k, ...) matrix that a rank holds."""

    name: str  # the layer's, for refusals
    coding: Coding
    full_k: int
    k: int
    k_start: int

    @property
    def rows(self) -> Range:
        return self.k_start, self.k_start + self.k

    @property
    def groups(self) -> Range:
        """The rows of the tables that it keeps."""
        if self.coding.act_order:
            return 0, self._all_groups
        first, last = groups_touched(self.k, self.coding.group_size, self.k_start)
        return first, last + 1

    @property
    def _all_groups(self) -> int:
        return groups_touched(self.full_k, self.coding.group_size)[1] + 1

    def empty(self, n: int, parts: int) -> dict[str, Tensor]:
        """Its tensors before anything is loaded: padding, and what a file may lack, is 0."""
        groups = self.groups[1] - self.groups[0]
        zero = symmetric_zero(self.coding.bits)
        return {
            "words": torch.zeros(div_up(self.k, self.coding.per_word), n, dtype=torch.int32),
            "scales": torch.zeros(groups, n, dtype=torch.float32),
            "zeros": torch.full((groups, n), zero, dtype=torch.uint8),
            "g_idx": torch.full((parts, self.k), UNSET, dtype=torch.int32),
        }

    def read_words(self, loaded: Tensor, columns: Range, device: torch.device) -> Tensor:
        coding = self.coding
        rows, available = held(loaded, coding.packing, coding.bits)
        expected = self.full_k if coding.packing == Packing.AWQ else self._whole_words
        self._check("codes", loaded, rows == expected, available, columns)
        return cut_words(
            self._near(loaded, columns).to(device),
            coding.packing,
            self.rows,
            self._within(columns),
            coding.bits,
        )

    def read_scales(self, loaded: Tensor, columns: Range, device: torch.device) -> Tensor:
        k_axis, n_axis = self.coding.axes
        groups = loaded.shape[k_axis]
        self._check("scales", loaded, groups == self._all_groups, loaded.shape[n_axis], columns)
        found = loaded.narrow(n_axis, columns[0], columns[1] - columns[0])
        found = found.narrow(k_axis, self.groups[0], self.groups[1] - self.groups[0])
        return (found if k_axis == 0 else found.t()).to(device, torch.float32)

    def read_zeros(self, loaded: Tensor, columns: Range, device: torch.device) -> Tensor:
        coding = self.coding
        k_axis, n_axis = coding.axes
        available = loaded.shape[n_axis] * coding.per_word
        right = loaded.shape[k_axis] == self._all_groups
        self._check("zero points", loaded, right, available, columns)
        loaded = loaded.to(device)
        if coding.packing == Packing.GPTQ:
            loaded = plain_zeros(loaded, coding.bits, coding.checkpoint_format)
        groups = torch.arange(*self.groups, device=device)
        return read_zeros(loaded, coding.packing, groups, *columns, coding.bits).to(torch.uint8)

    def read_g_idx(self, loaded: Tensor, device: torch.device) -> Tensor:
        self._check("g_idx", loaded, tuple(loaded.shape) == (self.full_k,), 1, (0, 1))
        return loaded[slice(*self.rows)].to(device, torch.int32)

    @property
    def _whole_words(self) -> int:
        """Rows that the words of the whole matrix have room for."""
        return div_up(self.full_k, self.coding.per_word) * self.coding.per_word

    def _near(self, loaded: Tensor, columns: Range) -> Tensor:
        """The part of a matrix of words that holds some columns: the rest need not be moved."""
        if self.coding.packing == Packing.AWQ:
            per_word = self.coding.per_word
            return loaded[:, columns[0] // per_word : div_up(columns[1], per_word)]
        start, size = columns[0], columns[1] - columns[0]
        return loaded.narrow(self.coding.axes[1], start, size)

    def _within(self, columns: Range) -> Range:
        """Where in what `_near` gives the columns are."""
        start = columns[0] % self.coding.per_word if self.coding.packing == Packing.AWQ else 0
        return start, start + columns[1] - columns[0]

    def _check(
        self, what: str, loaded: Tensor, right: bool, available: int, columns: Range
    ) -> None:
        if right and columns[1] <= available:
            return
        coding = self.coding
        got = f"shape {tuple(loaded.shape)}"
        expected = (
            f"K = {self.full_k} ({self._all_groups} groups of {coding.group_size}, {coding.bits} "
            f"bits, {coding.packing.name}) and columns up to {columns[1]}"
        )
        remedy = "the file and its quantization settings do not belong together"
        raise ValueError(
            refusal("padmarlin.integrations.vllm", f"{what} of {self.name}", got, expected, remedy)
        )

    def _check_symmetric(self, zeros: Tensor) -> None:
        """vLLM ignores the zero points of such layers. Here they must be what it takes them for."""
        middle = symmetric_zero(self.coding.bits)
        others = zeros[zeros != middle]
        if len(others):
            function, argument = "padmarlin.integrations.vllm", f"zero points of {self.name}"
            expected = f"{middle} everywhere, as {_SAYS_SYMMETRIC[self.coding.packing]}"
            remedy = "correct the quantization settings, or the file"
            raise ValueError(refusal(function, argument, int(others[0]), expected, remedy))

    def repack(
        self,
        words: Tensor,
        scales: Tensor,
        zeros: Tensor,
        g_idx: Tensor | None,
        dtype: torch.dtype,
    ) -> PaddedWeight:
        """The weight of some columns; `g_idx` (k) is that of their matrix."""
        coding = self.coding
        if coding.sym:
            self._check_symmetric(zeros)
        if g_idx is None and coding.act_order:
            first, last = groups_touched(self.k, coding.group_size, self.k_start)
            scales, zeros = scales[first : last + 1], zeros[first : last + 1]
        return repack_gptq(
            words,
            scales,
            pack(zeros, coding.bits, 1),
            g_idx,
            bits=coding.bits,
            group_size=coding.group_size,
            sym=True if coding.sym else None,
            k=self.k,
            checkpoint_format="gptq_v2",
            k_start=self.k_start,
            dtype=dtype,
        )
