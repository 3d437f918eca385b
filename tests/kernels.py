# SPDX-License-Identifier: Apache-2.0
"""Where kernels run in tests: the CPU emulator always, a CUDA device where there is one.

Both take the same PaddedWeight and activations, so that one test holds for both.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import padmarlin
from padmarlin import _extension
from padmarlin.layout import TILE, round_up, tile_words

NAN = float("nan")


@functools.cache
def emulator() -> ModuleType:
    """The emulator's module; skips the test where no host compiler can build it."""
    if importlib.util.find_spec("pybind11") is None:
        pytest.skip("the emulator needs pybind11", allow_module_level=True)
    if shutil.which("g++") is None and shutil.which("c++") is None:
        reason = "the emulator needs a C++20 compiler (g++ 11 or newer)"
        pytest.skip(reason, allow_module_level=True)
    from tests.emulator import native

    return native


def cuda_skip_reason() -> str | None:
    """Why nothing can run on a CUDA device here, or None."""
    if not _extension.extension_status().available:
        return _extension.extension_status().reason
    if not torch.cuda.is_available():
        return "no CUDA device"
    if torch.cuda.get_device_capability() < (8, 0):
        return "the device is older than compute capability 8.0"
    return None


@dataclass(frozen=True)
class EmulatedRun:
    """How the emulator runs a launch: its schedule, and when asynchronous copies arrive."""

    delivery: str = "late"
    seed: int = 0
    resident_blocks: int = 1
    num_sms: int = 8
    architecture: int = 90
    wgmma: bool = False  # the device has the wgmma kernel: the dispatcher may take it
    wgmma_rows: int | None = None  # the wgmma kernel whatever the dispatcher says: kBlockRows
    shape: tuple[int, int, int] | None = None  # m_steps, column_warps, k_groups
    blocks: int | None = None  # stream-K over so many
    splits: int | None = None  # parts of K, the same for every tile

    def choice(self, a: Tensor, weight: padmarlin.PaddedWeight, batch_invariant: bool) -> Any:
        """The dispatcher's, but for what this run prescribes."""
        native = emulator()
        device = native.Device(
            num_sms=self.num_sms, architecture=self.architecture,
            dram_gbps=300 * self.num_sms // 8, wgmma=self.wgmma,
        )  # fmt: skip
        m, asymmetric = a.shape[0], weight.zeros is not None
        asked = {
            "m": m, "padded_n": weight.padded_n, "bits": weight.bits, "asymmetric": asymmetric,
        }  # fmt: skip
        of_a = {
            "gathers": weight.columns is not None,
            "copy_bytes": native.copy_bytes(a.data_ptr(), _lda(a), *a.shape),
        }
        problem = native.GemmProblem(
            **asked, **of_a, padded_k=weight.padded_k, dequant=int(weight.dequant),
            batch_invariant=batch_invariant,
        )  # fmt: skip
        chosen = native.choose(problem, device)
        own = (chosen.m_steps, chosen.column_warps, chosen.k_groups)
        if {self.wgmma_rows, self.shape, self.blocks, self.splits} == {None}:
            return chosen

        def partition_of(tiles: int) -> Any:
            k_tiles = weight.padded_k // TILE
            if self.splits is not None:
                return native.split_k(tiles, k_tiles, self.blocks or tiles, self.splits)
            if self.blocks is not None:
                return native.stream_k(tiles, k_tiles, self.blocks, tiles)
            return native.data_parallel(tiles, k_tiles, tiles)

        if self.wgmma_rows is not None:
            return native.wgmma_choice(
                **asked, **of_a, rows=self.wgmma_rows, partition_of=partition_of
            )
        m_steps, column_warps, k_groups = self.shape or own
        return native.mma_choice(
            **asked, m_steps=m_steps, column_warps=column_warps, k_groups=k_groups,
            partition_of=partition_of,
        )  # fmt: skip

    def gemm(
        self,
        a: Tensor,
        weight: padmarlin.PaddedWeight,
        bias: Tensor | None = None,
        *,
        out: Tensor | None = None,
        batch_invariant: bool = False,
    ) -> Tensor:
        """padmarlin.gemm on the emulator; `out` and the partials hold NaN beforehand."""
        if out is None:
            out = torch.full((a.shape[0], weight.n), NAN, dtype=weight.dtype)
        self.gemm_statistics(a, weight, bias, out=out, batch_invariant=batch_invariant)
        return out

    def gemm_statistics(
        self,
        a: Tensor,
        weight: padmarlin.PaddedWeight,
        bias: Tensor | None = None,
        *,
        out: Tensor,
        batch_invariant: bool = False,
    ) -> dict[str, Any]:
        """The same; returns the shared-memory accesses of the launch by instruction."""
        native = emulator()
        m = a.shape[0]
        choice = self.choice(a, weight, batch_invariant)
        partials = torch.full((choice.partials_bytes // 4,), NAN)
        counters = torch.zeros(choice.partition.num_counters, dtype=torch.int32)
        dtypes = {torch.float16: native.Dtype.HALF, torch.bfloat16: native.Dtype.BFLOAT16}
        regions = [_region(t) for t in (a, weight.qweight, weight.scales, weight.zeros)]
        statistics = native.gemm(
            a=a.data_ptr(),
            qweight=weight.qweight.data_ptr(),
            scales=weight.scales.data_ptr(),
            zeros=_address(weight.zeros),
            slice_rows=weight.slice_rows.data_ptr(),
            columns=_address(weight.columns),
            bias=_address(bias),
            out=out.data_ptr(),
            partials=partials.data_ptr(),
            counters=counters.data_ptr(),
            lda=_lda(a),
            ldc=out.stride(0) if m > 1 else weight.n,
            m=m,
            n=weight.n,
            k=weight.k,
            padded_n=weight.padded_n,
            padded_k=weight.padded_k,
            scale_rows=weight.scales.shape[0],
            front_pad=weight.front_pad,
            bits=weight.bits,
            dtype=dtypes[weight.dtype],
            dequant=int(weight.dequant),
            choice=choice,
            options=native.LaunchOptions(
                seed=self.seed,
                delivery=self.delivery,
                resident_blocks=self.resident_blocks,
                regions=[region for region in regions if region is not None],
            ),
        )
        assert not counters.any(), "the launch leaves counters that are not zero"
        return statistics

    def dequantize(
        self, weight: padmarlin.PaddedWeight, first_tile: int = 0, *, out: Tensor
    ) -> dict[str, Any]:
        """Columns of the weight from a tile on, as many as `out` has, of logical rows; returns the
        shared-memory accesses."""
        native = emulator()
        dtypes = {torch.float16: native.Dtype.HALF, torch.bfloat16: native.Dtype.BFLOAT16}
        column = first_tile * TILE
        zeros = None if weight.zeros is None else weight.zeros[:, column:]
        return native.dequantize(
            qweight=weight.qweight[first_tile:].data_ptr(),
            scales=weight.scales[:, column:].data_ptr(),
            zeros=_address(zeros),
            slice_rows=weight.slice_rows.data_ptr(),
            columns=_address(weight.columns),
            out=out.data_ptr(),
            lds=weight.padded_n,
            ldo=out.stride(0) if out.shape[0] > 1 else out.shape[1],
            n=out.shape[1],
            k=weight.k,
            padded_k=weight.padded_k,
            scale_rows=weight.scales.shape[0],
            front_pad=weight.front_pad,
            bits=weight.bits,
            dtype=dtypes[weight.dtype],
            dequant=int(weight.dequant),
            options=native.LaunchOptions(seed=self.seed, resident_blocks=self.resident_blocks),
        )

    def round(self, products: Tensor, bias: Tensor | None = None, *, out: Tensor) -> None:
        """products + bias, rounded once into `out`, both of any row stride."""
        native = emulator()
        dtypes = {torch.float16: native.Dtype.HALF, torch.bfloat16: native.Dtype.BFLOAT16}
        m, n = out.shape
        native.round(
            products=products.data_ptr(),
            bias=_address(bias),
            out=out.data_ptr(),
            ldp=products.stride(0),
            ldo=out.stride(0) if m > 1 else n,
            m=m,
            n=n,
            dtype=dtypes[out.dtype],
            options=native.LaunchOptions(seed=self.seed, resident_blocks=self.resident_blocks),
        )

    def repack(
        self,
        words: Tensor,
        source_rows: Tensor,
        slice_rows: Tensor,
        pad_codes: Tensor | None,
        packing: int,
        first_column: int,
        n: int,
        bits: int,
        base: int,
    ) -> Tensor:
        padded_n, padded_k = round_up(n, TILE), source_rows.shape[0]
        out = torch.full(
            (padded_n // TILE, padded_k // TILE, tile_words(bits)), -1, dtype=torch.int32
        )
        emulator().repack(
            words=words.data_ptr(),
            source_rows=source_rows.data_ptr(),
            slice_rows=slice_rows.data_ptr(),
            pad_codes=_address(pad_codes),
            out=out.data_ptr(),
            ldw=words.stride(0),
            word_rows=words.shape[0],
            word_columns=words.shape[1],
            packing=int(packing),
            first_column=first_column,
            n=n,
            padded_n=padded_n,
            padded_k=padded_k,
            scale_rows=1 if pad_codes is None else pad_codes.shape[0],
            bits=bits,
            field_base=base,
        )
        return out


class CudaRun:
    """The same on the device; tensors go there and come back with their strides."""

    def gemm(self, a, weight, bias=None, *, out=None, batch_invariant=False):
        bias = None if bias is None else bias.cuda()
        result = None if out is None else _to_cuda(out)
        got = padmarlin.gemm(
            _to_cuda(a), weight.to("cuda"), bias, out=result, batch_invariant=batch_invariant
        )
        if out is None:
            return got.cpu()
        return out.copy_(got)

    def repack(self, words, source_rows, slice_rows, pad_codes, *numbers):
        pad_codes = None if pad_codes is None else pad_codes.cuda()
        tensors = (_to_cuda(words), source_rows.cuda(), slice_rows.cuda(), pad_codes)
        return torch.ops.padmarlin.repack(*tensors, *numbers).cpu()


def _lda(a: Tensor) -> int:
    """As csrc/torch has it: a single row has no next one."""
    return a.stride(0) if a.shape[0] > 1 else 0


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _region(tensor: Tensor | None) -> tuple[int, int] | None:
    """The bytes from the tensor's first element to its last: what a copy may read."""
    if tensor is None or tensor.numel() == 0:
        return None
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), (last + 1) * tensor.element_size()


def _to_cuda(tensor: Tensor) -> Tensor:
    """On the device with the same strides and storage offset: the whole storage travels."""
    storage = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    return storage.cuda().as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
