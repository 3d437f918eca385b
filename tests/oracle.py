# SPDX-License-Identifier: Apache-2.0
"""An independent reading of GPTQ tensors: numpy, float64, nothing of padmarlin.

Also makers of random GPTQ tensors as third-party quantizers write them, whole or one rank's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

ONES = {4: 0x11111111, 8: 0x01010101}


def pack(codes: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """Codes to int32 words along `axis`, lowest bits first; the last word is filled with zeros."""
    codes = np.moveaxis(codes, axis, 0).astype(np.uint32)
    per_word = 32 // bits
    words = np.zeros((-(-codes.shape[0] // per_word), *codes.shape[1:]), dtype=np.uint32)
    for position in range(per_word):
        part = codes[position::per_word]
        words[: len(part)] |= part << np.uint32(bits * position)
    return np.ascontiguousarray(np.moveaxis(words, 0, axis)).view(np.int32)


def unpack(words: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """The inverse of `pack`, up to the filling of the last word."""
    words = np.moveaxis(np.ascontiguousarray(words).view(np.uint32), axis, 0)
    shifts = np.arange(0, 32, bits, dtype=np.uint32).reshape(1, -1, *[1] * (words.ndim - 1))
    codes = (words[:, None] >> shifts) & np.uint32(2**bits - 1)
    return np.moveaxis(codes.reshape(-1, *words.shape[1:]), 0, axis).astype(np.int64)


@dataclass(frozen=True)
class Gptq:
    """The tensors of a GPTQ layer, or of one rank's rows of it, and how to read them."""

    qweight: np.ndarray
    scales: np.ndarray  # float16, or float32 (bfloat16 scales are made from these)
    qzeros: np.ndarray | None
    g_idx: np.ndarray | None
    k: int
    bits: int
    group_size: int
    checkpoint_format: str
    k_start: int = 0
    first_group: int = 0  # the group of row 0 of scales

    @property
    def n(self) -> int:
        return self.scales.shape[1]

    def row_groups(self) -> np.ndarray:
        """The row of scales of each row."""
        if self.g_idx is not None:
            return self.g_idx.astype(np.int64)
        size = self.k_start + self.k if self.group_size == -1 else self.group_size
        return (np.arange(self.k) + self.k_start) // size - self.first_group

    def zeros(self) -> np.ndarray:
        if self.qzeros is None:
            return np.full(self.scales.shape, 2 ** (self.bits - 1))
        words = self.qzeros.view(np.uint32)
        if self.checkpoint_format == "gptq":
            words = words + np.uint32(ONES[self.bits])
        return unpack(words.view(np.int32), self.bits, 1)[:, : self.n]

    def dequantized(self, dtype: torch.dtype = torch.float16) -> Tensor:
        """(k, n): scales rounded to `dtype`, then (q - z) * s in float64, rounded once."""
        groups = self.row_groups()
        differences = unpack(self.qweight, self.bits, 0)[: self.k] - self.zeros()[groups]
        scales = torch.from_numpy(self.scales).to(dtype).double().numpy()
        # torch rounds float64 to 16 bits by way of float32; 9 bits times 11 bits fit that exactly.
        return torch.from_numpy(differences * scales[groups]).to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """The tensor arguments of repack_gptq."""
        names = ("qweight", "scales", "qzeros", "g_idx")
        arrays = {name: getattr(self, name) for name in names}
        return {name: torch.from_numpy(a.copy()) for name, a in arrays.items() if a is not None}

    def arguments(self) -> dict[str, object]:
        """All arguments of repack_gptq."""
        return {
            **self.tensors(),
            "k": self.k,
            "bits": self.bits,
            "group_size": self.group_size,
            "checkpoint_format": self.checkpoint_format,
            "k_start": self.k_start,
        }

    def rows(self, start: int, stop: int) -> Gptq:
        """One rank's own tensors: its rows packed anew, and the groups they touch (all of them
        with a g_idx)."""
        codes = unpack(self.qweight, self.bits, 0)[start:stop]
        part = replace(self, qweight=pack(codes, self.bits, 0), k=stop - start, k_start=start)
        if self.g_idx is not None:
            return replace(part, g_idx=self.g_idx[start:stop])
        groups = self.row_groups()[start:stop]
        touched = slice(groups[0], groups[-1] + 1)
        qzeros = None if self.qzeros is None else self.qzeros[touched]
        return replace(part, scales=self.scales[touched], qzeros=qzeros, first_group=int(groups[0]))


def random_gptq(
    rng: np.random.Generator,
    k: int,
    n: int,
    *,
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = True,
    act_order: bool = False,
    checkpoint_format: str = "gptq",
    largest_scale: float = 0.02,
) -> Gptq:
    """Random tensors. A symmetric layer has qzeros too, as the quantizers write them; an
    asymmetric one has zero points of every value, 0 and its v1 borrow included."""
    group_rows = k if group_size == -1 else group_size
    groups = -(-k // group_rows)
    codes = rng.integers(0, 2**bits, (k, n))
    zeros = np.full((groups, n), 2 ** (bits - 1))
    if not symmetric:
        zeros = rng.integers(0, 2**bits, (groups, n))
        zeros[rng.random((groups, n)) < 0.2] = 0
    qzeros = pack(zeros, bits, 1)
    if checkpoint_format == "gptq":
        qzeros = (qzeros.view(np.uint32) - np.uint32(ONES[bits])).view(np.int32)
    scales = rng.uniform(-largest_scale, largest_scale, (groups, n)).astype(np.float16)
    g_idx = None
    if act_order:
        g_idx = (rng.permutation(k) // group_rows).astype(np.int32)
    return Gptq(pack(codes, bits, 0), scales, qzeros, g_idx, k, bits, group_size, checkpoint_format)


def assert_same(got: Tensor, expected: Tensor) -> None:
    """Bit for bit; -0 is 0. Says where the first difference is."""
    assert got.dtype == expected.dtype, f"dtype {got.dtype}, expected {expected.dtype}"
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    wrong = (got != expected).nonzero()
    if len(wrong):
        at = tuple(int(index) for index in wrong[0])
        raise AssertionError(
            f"shape {tuple(got.shape)}: {len(wrong)} differ, first at {at}: "
            f"got {got[at].item()}, expected {expected[at].item()}"
        )
