# SPDX-License-Identifier: Apache-2.0
"""An independent reading of GPTQ, AWQ and compressed-tensors: numpy, float64, nothing of padmarlin.

Also makers of random tensors as third-party quantizers write them, whole or one rank's.
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


class Layer:
    """What the layers of all formats have in common: a format adds `codes` (k, n), and `zeros` and
    `scale_table` (groups, n)."""

    k: int
    group_size: int
    k_start: int
    first_group: int  # the group of row 0 of the tables
    g_idx: np.ndarray | None

    def codes(self) -> np.ndarray:
        raise NotImplementedError

    def zeros(self) -> np.ndarray:
        raise NotImplementedError

    def scale_table(self) -> np.ndarray:
        raise NotImplementedError

    def row_groups(self) -> np.ndarray:
        """The row of the tables of each row."""
        if self.g_idx is not None:
            return self.g_idx.astype(np.int64)
        size = self.k_start + self.k if self.group_size == -1 else self.group_size
        return (np.arange(self.k) + self.k_start) // size - self.first_group

    def touched(self, start: int, stop: int) -> slice:
        """The rows of the tables that some rows use; with a g_idx the tables stay whole."""
        if self.g_idx is not None:
            return slice(0, None)
        groups = self.row_groups()[start:stop]
        return slice(int(groups[0]), int(groups[-1]) + 1)

    def dequantized(self, dtype: torch.dtype = torch.float16) -> Tensor:
        """(k, n): scales rounded to `dtype`, then (q - z) * s in float64, rounded once."""
        groups = self.row_groups()
        differences = self.codes() - self.zeros()[groups]
        scales = torch.from_numpy(self.scale_table().copy()).to(dtype).double().numpy()
        # torch rounds float64 to 16 bits by way of float32; 9 bits times 11 bits fit that exactly.
        return torch.from_numpy(differences * scales[groups]).to(dtype)

    def named(self, *names: str) -> dict[str, Tensor]:
        """Those of its arrays that there are, as tensors."""
        arrays = {name: getattr(self, name) for name in names}
        return {name: torch.from_numpy(a.copy()) for name, a in arrays.items() if a is not None}


@dataclass(frozen=True)
class Gptq(Layer):
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
    first_group: int = 0

    @property
    def n(self) -> int:
        return self.scales.shape[1]

    def codes(self) -> np.ndarray:
        return unpack(self.qweight, self.bits, 0)[: self.k]

    def scale_table(self) -> np.ndarray:
        return self.scales

    def zeros(self) -> np.ndarray:
        if self.qzeros is None:
            return np.full(self.scales.shape, 2 ** (self.bits - 1))
        words = self.qzeros.view(np.uint32)
        if self.checkpoint_format == "gptq":
            words = words + np.uint32(ONES[self.bits])
        return unpack(words.view(np.int32), self.bits, 1)[:, : self.n]

    def tensors(self) -> dict[str, Tensor]:
        """The tensor arguments of repack_gptq."""
        return self.named("qweight", "scales", "qzeros", "g_idx")

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
        touched = self.touched(start, stop)
        return replace(
            self,
            qweight=pack(self.codes()[start:stop], self.bits, 0),
            scales=self.scales[touched],
            qzeros=None if self.qzeros is None else self.qzeros[touched],
            g_idx=None if self.g_idx is None else self.g_idx[start:stop],
            k=stop - start,
            k_start=start,
            first_group=touched.start,
        )


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


AWQ_READ = [0, 4, 1, 5, 2, 6, 3, 7]  # the nibble that holds each of eight columns
AWQ_WRITE = [0, 2, 4, 6, 1, 3, 5, 7]  # the column that each nibble holds


def pack_awq(codes: np.ndarray) -> np.ndarray:
    """(rows, n) to int32 (rows, ceil(n / 8))."""
    codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 8)))
    return pack(codes.reshape(len(codes), -1, 8)[:, :, AWQ_WRITE].reshape(codes.shape), 4, 1)


def unpack_awq(words: np.ndarray) -> np.ndarray:
    codes = unpack(words, 4, 1)
    return codes.reshape(len(codes), -1, 8)[:, :, AWQ_READ].reshape(codes.shape)


@dataclass(frozen=True)
class Awq(Layer):
    """The tensors of an AWQ layer, or of one rank's rows of it, and how to read them."""

    qweight: np.ndarray  # (k, ceil(n / 8))
    scales: np.ndarray  # (groups, n)
    qzeros: np.ndarray  # (groups, ceil(n / 8))
    group_size: int
    k_start: int = 0
    first_group: int = 0
    g_idx: None = None

    @property
    def k(self) -> int:  # type: ignore[override]
        return self.qweight.shape[0]

    @property
    def n(self) -> int:
        return self.scales.shape[1]

    def codes(self) -> np.ndarray:
        return unpack_awq(self.qweight)[:, : self.n]

    def zeros(self) -> np.ndarray:
        return unpack_awq(self.qzeros)[:, : self.n]

    def scale_table(self) -> np.ndarray:
        return self.scales

    def tensors(self) -> dict[str, Tensor]:
        """The tensor arguments of repack_awq."""
        return self.named("qweight", "scales", "qzeros")

    def arguments(self) -> dict[str, object]:
        """All arguments of repack_awq."""
        return {**self.tensors(), "group_size": self.group_size, "k_start": self.k_start}

    def rows(self, start: int, stop: int) -> Awq:
        """One rank's own tensors: its rows, and the groups they touch."""
        touched = self.touched(start, stop)
        return replace(
            self,
            qweight=self.qweight[start:stop],
            scales=self.scales[touched],
            qzeros=self.qzeros[touched],
            k_start=start,
            first_group=touched.start,
        )


def random_awq(
    rng: np.random.Generator,
    k: int,
    n: int,
    *,
    group_size: int = 128,
    symmetric: bool = False,
    largest_scale: float = 0.02,
) -> Awq:
    groups = 1 if group_size == -1 else -(-k // group_size)
    zeros = rng.integers(0, 16, (groups, n))
    if symmetric:
        zeros[:] = 8
    scales = rng.uniform(-largest_scale, largest_scale, (groups, n)).astype(np.float16)
    codes = rng.integers(0, 16, (k, n))
    return Awq(pack_awq(codes), scales, pack_awq(zeros), group_size)


@dataclass(frozen=True)
class CompressedTensors(Layer):
    """The tensors of a pack-quantized layer, or of one rank's rows of it, and how to read them."""

    weight_packed: np.ndarray  # (n, ceil(k * bits / 32))
    weight_scale: np.ndarray  # (n, groups)
    weight_zero_point: np.ndarray | None  # (ceil(n * bits / 32), groups)
    weight_g_idx: np.ndarray | None  # (k)
    weight_shape: np.ndarray  # [n, k]
    bits: int
    group_size: int
    k_start: int = 0
    first_group: int = 0

    @property
    def n(self) -> int:
        return int(self.weight_shape[0])

    @property
    def k(self) -> int:  # type: ignore[override]
        return int(self.weight_shape[1])

    @property
    def g_idx(self) -> np.ndarray | None:  # type: ignore[override]
        return self.weight_g_idx

    def codes(self) -> np.ndarray:
        return unpack(self.weight_packed, self.bits, 1)[:, : self.k].T

    def zeros(self) -> np.ndarray:
        if self.weight_zero_point is None:
            return np.full(self.scale_table().shape, 2 ** (self.bits - 1))
        return unpack(self.weight_zero_point, self.bits, 0)[: self.n].T

    def scale_table(self) -> np.ndarray:
        return self.weight_scale.T

    def tensors(self) -> dict[str, Tensor]:
        """The tensor arguments of repack_compressed_tensors."""
        names = ("weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx")
        return self.named(*names, "weight_shape")

    def arguments(self) -> dict[str, object]:
        """All arguments of repack_compressed_tensors."""
        return {
            **self.tensors(),
            "bits": self.bits,
            "group_size": self.group_size,
            "sym": self.weight_zero_point is None,
            "k_start": self.k_start,
        }

    def rows(self, start: int, stop: int) -> CompressedTensors:
        """One rank's own tensors: its rows packed anew, and the groups they touch (all of them
        with a g_idx)."""
        touched = self.touched(start, stop)
        zeros, g_idx = self.weight_zero_point, self.weight_g_idx
        return replace(
            self,
            weight_packed=pack(self.codes()[start:stop].T, self.bits, 1),
            weight_scale=self.weight_scale[:, touched],
            weight_zero_point=None if zeros is None else zeros[:, touched],
            weight_g_idx=None if g_idx is None else g_idx[start:stop],
            weight_shape=np.array([self.n, stop - start]),
            k_start=start,
            first_group=touched.start,
        )


def random_compressed_tensors(
    rng: np.random.Generator,
    k: int,
    n: int,
    *,
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = True,
    act_order: bool = False,
    largest_scale: float = 0.02,
) -> CompressedTensors:
    """A symmetric layer has no zero points, as compressed-tensors writes it."""
    group_rows = k if group_size == -1 else group_size
    groups = -(-k // group_rows)
    zeros = None if symmetric else pack(rng.integers(0, 2**bits, (n, groups)), bits, 0)
    return CompressedTensors(
        weight_packed=pack(rng.integers(0, 2**bits, (n, k)), bits, 1),
        weight_scale=rng.uniform(-largest_scale, largest_scale, (n, groups)).astype(np.float16),
        weight_zero_point=zeros,
        weight_g_idx=(rng.permutation(k) // group_rows).astype(np.int32) if act_order else None,
        weight_shape=np.array([n, k]),
        bits=bits,
        group_size=group_size,
    )


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
