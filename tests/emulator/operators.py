# SPDX-License-Identifier: Apache-2.0
"""``torch.ops.padmarlin.*`` on the emulator: the same tensors, plus how to launch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from padmarlin.layout import TILE, round_up, tile_words
from torch import Tensor

from emulator import native

NUM_SMS = 132
"""Of the device that the kernel selection is told of: an H200."""


@dataclass(frozen=True)
class Launch:
    """How the emulated launch behaves; see ``LaunchOptions`` in ``runtime.h``."""

    seed: int = 0
    delivery: str = "eager"
    resident_blocks: int = 1

    def options(self, *readable: Tensor | None) -> native.LaunchOptions:
        """``readable``: the tensors that asynchronous copies may read."""
        regions = [_extent(tensor) for tensor in readable if tensor is not None]
        return native.LaunchOptions(
            seed=self.seed,
            delivery=self.delivery,
            resident_blocks=self.resident_blocks,
            regions=regions,
        )


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Address and bytes from the first element to the last, the gaps between rows included."""
    if tensor.numel() == 0:
        return tensor.data_ptr(), 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), (last + 1) * tensor.element_size()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def gemm_out(
    out: Tensor,
    a: Tensor,
    qweight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    slice_rows: Tensor,
    columns: Tensor | None,
    bias: Tensor | None,
    k: int,
    n: int,
    bits: int,
    front_pad: int,
    dequant: int,
    batch_invariant: bool = False,
    *,
    choice: tuple[int, int] | None = None,
    launch: Launch = Launch(),
) -> dict[str, native.SharedAccesses]:
    """``torch.ops.padmarlin.gemm_out``; returns the accesses to shared memory.

    ``choice``: (m_slices, splits); by default what the device would choose.
    """
    m, padded_n, padded_k = a.shape[0], qweight.shape[0] * TILE, qweight.shape[1] * TILE
    if m == 0:
        return {}
    m_slices, splits = choice or native.select_gemm(m, padded_n, padded_k, batch_invariant, NUM_SMS)
    # The contract promises the partials any content; NaN is the worst.
    partials = torch.full((splits, m, padded_n), float("nan")) if splits > 1 else None
    return native.gemm(
        a=a.data_ptr(),
        qweight=qweight.data_ptr(),
        scales=scales.data_ptr(),
        zeros=_address(zeros),
        slice_rows=slice_rows.data_ptr(),
        columns=_address(columns),
        bias=_address(bias),
        out=out.data_ptr(),
        partials=_address(partials),
        lda=a.stride(0),
        ldc=out.stride(0),
        m=m,
        n=n,
        k=k,
        padded_n=padded_n,
        padded_k=padded_k,
        scale_rows=scales.shape[0],
        front_pad=front_pad,
        bits=bits,
        dtype=native.Dtype.HALF if a.dtype == torch.float16 else native.Dtype.BFLOAT16,
        dequant=int(dequant),
        m_slices=m_slices,
        splits=splits,
        options=launch.options(a, qweight, scales, zeros),
    )


def gemm(a: Tensor, *weight, **keywords) -> Tensor:
    """``torch.ops.padmarlin.gemm``, into an output that held NaNs."""
    out = torch.full((a.shape[0], weight[7]), float("nan"), dtype=a.dtype)  # weight[7]: n
    gemm_out(out, a, *weight, **keywords)
    return out


def repack_gptq(
    qweight: Tensor,
    source_rows: Tensor,
    slice_rows: Tensor,
    pad_codes: Tensor | None,
    n: int,
    bits: int,
    field_base: int,
    *,
    launch: Launch = Launch(),
) -> Tensor:
    """``torch.ops.padmarlin.repack_gptq``."""
    padded_k, padded_n = source_rows.shape[0], round_up(n, TILE)
    out = torch.full((padded_n // TILE, padded_k // TILE, tile_words(bits)), -1, dtype=torch.int32)
    native.repack_gptq(
        qweight=qweight.data_ptr(),
        source_rows=source_rows.data_ptr(),
        slice_rows=slice_rows.data_ptr(),
        pad_codes=_address(pad_codes),
        out=out.data_ptr(),
        ldw=qweight.stride(0),
        source_words=qweight.shape[0],
        n=n,
        padded_n=padded_n,
        padded_k=padded_k,
        scale_rows=1 if pad_codes is None else pad_codes.shape[0],
        bits=bits,
        field_base=field_base,
        options=launch.options(),
    )
    return out
