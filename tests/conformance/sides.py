# SPDX-License-Identifier: Apache-2.0
"""The two sides of a comparison: probes on the emulator and on a device, arrays in, arrays out."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch

Array = np.ndarray

UNWRITTEN = 0xFF  # what a kernel leaves out must not look like an answer: NaN in every float

CONSUMERS = ("operand_b", "operand_a", "register_a")


class Side:
    """Calls the functions of tests/conformance/probes.cpp; a subclass says where arrays live."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def _call(self, name: str, *arguments: int | bool | Array, out: Array) -> Array:
        raise NotImplementedError

    def _invoke(self, name: str, arguments: list[ctypes._SimpleCData]) -> None:
        function = getattr(self._library, f"probe_{name}")
        function.restype = ctypes.c_char_p
        message = function(*arguments)
        if message is not None:
            raise RuntimeError(f"{name}: {message.decode()}")

    # ---- a warp's instructions

    def mma(self, half: bool, a: Array, b: Array) -> Array:
        """Registers a (32, 4), b (32, 2) to d (32, 4)."""
        assert a.shape == (32, 4)
        assert b.shape == (32, 2)
        return self._call("mma", half, _u32(a), _u32(b), out=np.empty((32, 4), np.float32))

    def ldmatrix(self, matrices: Array, row_pitch: int) -> Array:
        """Four 8 x 8 matrices of 16 bits to registers (32, 4)."""
        assert matrices.size == 256
        assert 16 <= row_pitch <= 128
        out = np.empty((32, 4), np.uint32)
        return self._call("ldmatrix", matrices.astype(np.uint16), row_pitch, out=out)

    def exchange(self, values: Array) -> Array:
        """Two warps' floats (64, 4) through shared memory and a barrier: (64, 6)."""
        assert values.shape == (64, 4)
        out = np.empty((64, 6), np.float32)
        return self._call("exchange", values.astype(np.float32), out=out)

    def consume(self, consumer: str, half: bool, bits: int, tiles: Array, rows: Array) -> Array:
        """Packed tiles times activations (rows, 64) as tests/probes/format_consumers.cuh has it."""
        count, activation_rows = (2, 8) if consumer == "register_a" else (1, 8)
        shape = (64 * count, 8)
        if consumer == "operand_b":
            activation_rows, shape = 16, (16, 64)
        assert tiles.size == count * 128 * bits
        assert rows.shape == (activation_rows, 64)
        return self._call(
            "consume", CONSUMERS.index(consumer), half, bits, _u32(tiles), rows.astype(np.uint16),
            out=np.empty(shape, np.float32),
        )  # fmt: skip

    def stmatrix(self, fragments: Array) -> Array:
        """Registers (32, 4) to rows (32, 8) of 16 bits."""
        assert fragments.shape == (32, 4)
        return self._call("stmatrix", _u32(fragments), out=np.empty((32, 8), np.uint16))

    def wgmma(self, half: bool, a: Array, rows: Array) -> Array:
        """Registers a (4 k-slices, 128, 4), b as rows (columns, 64), to d (128, columns / 2)."""
        columns = rows.shape[0]
        assert a.shape == (4, 128, 4)
        assert columns in range(48, 161, 16)
        out = np.empty((128, columns // 2), np.float32)
        return self._call("wgmma", half, columns, _u32(a), rows.astype(np.uint16), out=out)

    # ---- copies

    def partial_copy(self, width: int, values: Array, present: int) -> Array:
        """32 threads copy `width` bytes each, of which `present` are read."""
        assert values.size == 32 * width
        assert 0 <= present <= width
        return self._call("partial_copy", width, values, present, out=np.empty_like(values))

    def policy_copy(self, values: Array) -> Array:
        assert values.size % 16 == 0
        assert values.size <= 1024 * 16
        return self._call("policy_copy", values.size // 16, values, out=np.empty_like(values))

    def reverse(self, values: Array) -> Array:
        """Each 1024 bytes with their 16-byte chunks in reverse order."""
        assert values.size % 1024 == 0
        return self._call("reverse", values.size // 1024, values, out=np.empty_like(values))

    def bulk_pipeline(self, values: Array) -> Array:
        """Each 512 bytes with their 16-byte chunks in reverse order, by the copy engine."""
        assert values.size % 512 == 0
        return self._call("bulk_pipeline", values.size // 512, values, out=np.empty_like(values))

    def tma_tile(self, matrix: Array, columns: int, x: int, y: int) -> Array:
        """The (16, 64) box at column x, row y of a (rows, >= columns) matrix of 16 bits, as it lies
        in shared memory."""
        rows, pitch = matrix.shape
        assert pitch * 2 % 16 == 0
        arguments = (columns, rows, 2 * pitch, x, y, matrix.astype(np.uint16))
        return self._call("tma_tile", *arguments, out=np.empty((16, 64), np.uint16))

    # ---- global memory that blocks share

    def atom_inc(self, order: int, initial: int, bounds: Array) -> Array:
        """What each of a row of increments returned; order 0 to 3 as ptx::Order."""
        counter = np.zeros(1, np.uint32)
        arguments = (order, bounds.size, initial, _u32(bounds), counter)
        return self._call("atom_inc", *arguments, out=_like([bounds]).astype(np.uint32))

    def ld_global(self, values: Array) -> Array:
        assert values.size % 128 == 0
        return self._call("ld_global", values.size // 4, values, out=np.empty_like(values))

    def overlap(self, values: Array) -> Array:
        assert values.size % 128 == 0
        return self._call("overlap", values.size // 4, values, out=np.empty_like(values))

    def fixup(self, kind: int, blocks: int, splits: int, terms: Array) -> Array:
        """Sums of terms (tiles, k_tiles, 768) over the k-tiles, cut as the kind says."""
        tiles, k_tiles, elements = terms.shape
        assert elements == 64 * 3 * 4
        partials = np.full((max(2, splits) * tiles * k_tiles + 2 * blocks, elements), np.nan)
        arguments = (kind, tiles, k_tiles, blocks, splits, terms, partials.astype(np.float32))
        counters = np.zeros(tiles + blocks, np.uint32)
        return self._call(
            "fixup", *arguments, counters, out=np.empty((tiles, elements), np.float32)
        )

    # ---- arithmetic on arrays of registers

    def map(self, name: str, half: bool, *operands: Array) -> Array:
        """fma2, mul2, sub2, broadcast_low, broadcast_high: uint32 to uint32."""
        return self._call(name, half, operands[0].size, *map(_u32, operands), out=_like(operands))

    def pack2(self, half: bool, low: Array, high: Array) -> Array:
        floats = [x.astype(np.float32) for x in (low, high)]
        return self._call("pack2", half, low.size, *floats, out=_like(floats))

    def to_float(self, half: bool, patterns: Array) -> Array:
        out = np.empty(patterns.shape, np.float32)
        return self._call("to_float", half, patterns.size, patterns.astype(np.uint16), out=out)

    def prmt(self, a: Array, b: Array, selector: Array) -> Array:
        operands = [_u32(x) for x in (a, b, selector)]
        return self._call("prmt", a.size, *operands, out=_like(operands))

    def dequantize(
        self, half: bool, bits: int, dequant: int, asymmetric: bool,
        words: Array, scales: Array, zeros: Array,
    ) -> Array:  # fmt: skip
        """words (count, bits / 4), scales and zeros (count) to fragments (count, 4)."""
        count = scales.size
        assert words.shape == (count, bits // 4)
        assert zeros.size == count
        operands = [_u32(x) for x in (words, scales, zeros)]
        out = np.empty((count, 4), np.uint32)
        return self._call("dequantize", half, bits, dequant, asymmetric, count, *operands, out=out)


class Host(Side):
    """The emulator; arrays stay where they are."""

    def _call(self, name: str, *arguments: int | bool | Array, out: Array) -> Array:
        arrays = [np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x for x in arguments]
        out.reshape(-1).view(np.uint8)[:] = UNWRITTEN
        pointers = [_argument(x, x.ctypes.data if isinstance(x, np.ndarray) else 0) for x in arrays]
        self._invoke(name, [*pointers, ctypes.c_void_p(out.ctypes.data)])
        return out


class Device(Side):
    """The current CUDA device; arrays travel."""

    def _call(self, name: str, *arguments: int | bool | Array, out: Array) -> Array:
        tensors = [_to_device(x) if isinstance(x, np.ndarray) else None for x in arguments]
        result = torch.full((out.nbytes,), UNWRITTEN, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        pointers = [
            _argument(x, 0 if tensor is None else tensor.data_ptr())
            for x, tensor in zip(arguments, tensors, strict=True)
        ]
        self._invoke(name, [*pointers, ctypes.c_void_p(result.data_ptr())])
        return result.cpu().numpy().view(out.dtype).reshape(out.shape)


def _to_device(array: Array) -> torch.Tensor:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return torch.from_numpy(flat.copy()).cuda()


def _argument(value: int | bool | Array, pointer: int) -> ctypes._SimpleCData:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(pointer)
    return ctypes.c_bool(value) if isinstance(value, bool) else ctypes.c_int(value)


def _u32(array: Array) -> Array:
    return np.asarray(array).astype(np.uint32)


def _like(operands: list[Array] | tuple[Array, ...]) -> Array:
    assert len({x.size for x in operands}) == 1
    return np.empty(operands[0].shape, np.uint32)
