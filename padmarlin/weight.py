# SPDX-License-Identifier: Apache-2.0
"""``PaddedWeight``: one repacked weight, its sizes and its tables, checked whenever it is made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from padmarlin.errors import (
    INT32_MAX,
    check_data,
    check_device,
    check_regular_file,
    check_strided,
    refusal,
)
from padmarlin.layout import (
    CODE_ORDERS,
    FORMAT_VERSION,
    SLICE,
    TILE,
    Dequant,
    code_order,
    round_up,
    tile_words,
)

_TENSORS = ("qweight", "scales", "zeros", "slice_rows", "columns")
_NUMBERS = ("format_version", "k", "n", "bits", "group_size", "front_pad", "dequant")


@dataclass(frozen=True, eq=False)
class PaddedWeight:
    """A (k, n) weight of 4- or 8-bit codes in whole 64 x 64 tiles (``docs/layout.md``).

    Made by ``repack_*`` and ``load_weight``; used by ``gemm`` and ``dequantize``.

    Attributes:
        qweight: int32 (padded_n / 64, padded_k / 64, 128 * bits): the codes.
        scales: fp16 or bf16 (scale rows, padded_n), permuted, times a power of two.
        zeros: int16 (scale rows, padded_n), permuted, shifted; None if symmetric.
        slice_rows: int32 (padded_k / 16): scale row of each 16 rows.
        columns: int32 (padded_k): activation column that each row reads, -1 none; None if row r
            reads column r - front_pad.
        k, n: logical sizes. bits: 4 or 8. group_size: of the checkpoint, -1 for one group.
        front_pad: rows of padding before row 0, below 64.
        dequant: how kernels turn codes into weights. code_order: order of codes inside a word.

    Raises:
        ValueError, TypeError: a tensor or number that contradicts the others, an unknown
            ``format_version``, a table that points outside. Nothing that passes can make a
            kernel read or write out of bounds.
    """

    qweight: Tensor
    scales: Tensor
    zeros: Tensor | None
    slice_rows: Tensor
    columns: Tensor | None
    k: int
    n: int
    bits: int
    group_size: int
    front_pad: int
    dequant: Dequant
    code_order: str
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_tensors(self)
        _check_tables(self)

    @property
    def dtype(self) -> torch.dtype:
        """What activations must be: torch.float16 or torch.bfloat16."""
        return self.scales.dtype

    @property
    def device(self) -> torch.device:
        return self.qweight.device

    @property
    def padded_k(self) -> int:
        return self.qweight.shape[1] * TILE

    @property
    def padded_n(self) -> int:
        return self.qweight.shape[0] * TILE

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(t.nbytes for t in self._tensors().values())

    @property
    def overhead(self) -> float:
        """Padding as a share of the logical size: padded_k * padded_n / (k * n) - 1."""
        return self.padded_k * self.padded_n / (self.k * self.n) - 1

    def __repr__(self) -> str:
        symmetry = "symmetric" if self.zeros is None else "asymmetric"
        return (
            f"PaddedWeight(k={self.k}, n={self.n}, bits={self.bits}, group_size={self.group_size}, "
            f"{symmetry}, padded {self.padded_k} x {self.padded_n}, front_pad={self.front_pad}, "
            f"gather={self.columns is not None}, {self.dtype}, {self.device})"
        )

    def _tensors(self) -> dict[str, Tensor]:
        named = {name: getattr(self, name) for name in _TENSORS}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def to(self, device: torch.device | str) -> PaddedWeight:
        """The same weight on another device. The dtype is part of the packing and cannot change."""
        if isinstance(device, torch.dtype):
            got = f"a dtype ({device})"
            remedy = "repack the checkpoint with dtype=... instead"
            raise TypeError(refusal("PaddedWeight.to", "device", got, "a device", remedy))
        checked = check_device("PaddedWeight.to", device, ("cpu", "cuda", "meta"))
        moved: dict[str, Any] = {name: t.to(checked) for name, t in self._tensors().items()}
        return replace(self, **moved)

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Tensors only; the numbers travel in ``metadata``, int64."""
        numbers = [int(getattr(self, name)) for name in _NUMBERS]
        numbers.append(CODE_ORDERS.index(self.code_order))
        state = {prefix + name: tensor for name, tensor in self._tensors().items()}
        state[prefix + "metadata"] = torch.tensor(numbers, dtype=torch.int64)
        return state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], prefix: str = "") -> PaddedWeight:
        """The inverse of :meth:`state_dict`; keys outside ``prefix`` are ignored."""
        function = "PaddedWeight.from_state_dict"
        for argument, value, kind in (("state", state, Mapping), ("prefix", prefix, str)):
            if not isinstance(value, kind):
                got = type(value).__name__
                raise TypeError(refusal(function, argument, got, f"a {kind.__name__}"))
        for name in ("metadata", "qweight", "scales", "slice_rows"):
            if not isinstance(state.get(prefix + name), Tensor):
                got = (
                    type(state[prefix + name]).__name__ if prefix + name in state else "no such key"
                )
                raise ValueError(refusal(function, "state", got, f"a tensor {prefix + name!r}"))
        metadata = state[prefix + "metadata"]
        check_data(function, prefix + "metadata", metadata)
        if metadata.dtype != torch.int64 or metadata.dim() != 1 or not metadata.numel():
            got = f"{metadata.dtype} {tuple(metadata.shape)}"
            raise ValueError(refusal(function, prefix + "metadata", got, "int64, 1-D"))
        # The version comes first, so that a reader can refuse what it does not understand.
        if metadata[0] != FORMAT_VERSION:
            _refuse_version(int(metadata[0]))
        numbers = metadata.tolist()
        if len(numbers) != len(_NUMBERS) + 1 or not 0 <= numbers[-1] < len(CODE_ORDERS):
            expected = f"{len(_NUMBERS) + 1} numbers, the last below {len(CODE_ORDERS)}"
            raise ValueError(refusal(function, prefix + "metadata", numbers, expected))
        fields = dict(zip(_NUMBERS, numbers[:-1], strict=True))
        tensors = {name: state.get(prefix + name) for name in _TENSORS}
        return cls(**tensors, **fields, code_order=CODE_ORDERS[numbers[-1]])  # type: ignore[arg-type]

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file; a crash leaves no half-written file under that name."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = _checked_path("PaddedWeight.save", path)
        check_data("PaddedWeight.save", "self", self.qweight)
        unfinished = path.with_name(path.name + ".unfinished")
        try:
            save_file({name: _alone(t) for name, t in self.state_dict().items()}, unfinished)
            unfinished.replace(path)
        except (OSError, SafetensorError) as error:
            got, expected = f"{path} ({error})", "a file that can be written"
            raise ValueError(refusal("PaddedWeight.save", "path", got, expected)) from error
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> PaddedWeight:
        """Reads what :meth:`save` wrote."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        function = "PaddedWeight.load"
        path = _checked_path(function, path)
        check_regular_file(function, "path", path)
        checked = check_device(function, device, ("cpu", "cuda"))
        try:
            state = load_file(path, device=str(checked))
        except (OSError, MemoryError, SafetensorError) as error:
            got, expected = f"{path} ({error})", "a readable safetensors file"
            raise ValueError(refusal(function, "path", got, expected)) from error
        return cls.from_state_dict(state)


def _checked_path(function: str, path: Any) -> Path:
    """`path`, which names a file: not empty, no NUL, no lone surrogate."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(refusal(function, "path", type(path).__name__, "str or PathLike"))
    checked = Path(path)
    try:
        is_name = bool(checked.name) and b"\0" not in os.fsencode(checked)
    except UnicodeError:
        is_name = False
    if not is_name:
        raise ValueError(refusal(function, "path", repr(str(path)), "the name of a file"))
    return checked


def _alone(tensor: Tensor) -> Tensor:
    """On the CPU, in memory of its own: safetensors refuses tensors that share theirs."""
    tensor = tensor.detach().cpu()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _refuse_version(version: object) -> None:
    remedy = "repack the checkpoint with this version of padmarlin, or upgrade padmarlin"
    raise ValueError(
        refusal("PaddedWeight", "format_version", version, str(FORMAT_VERSION), remedy)
    )


def _expect(condition: bool, argument: str, got: object, expected: str) -> None:
    if not condition:
        remedy = "repack the checkpoint; the tensors of a PaddedWeight belong together"
        raise ValueError(refusal("PaddedWeight", argument, got, expected, remedy))


def _check_numbers(w: PaddedWeight) -> None:
    for name in _NUMBERS:
        value = getattr(w, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(refusal("PaddedWeight", name, repr(value), "an int"))
        _expect(abs(value) <= INT32_MAX, name, value, f"at most {INT32_MAX} (2^31 - 1)")
    if w.format_version != FORMAT_VERSION:
        _refuse_version(w.format_version)
    _expect(w.bits in (4, 8), "bits", w.bits, "4 or 8")
    _expect(w.k >= 1 and w.n >= 1, "k, n", (w.k, w.n), "positive sizes")
    _expect(w.group_size == -1 or w.group_size >= 1, "group_size", w.group_size, "-1 or positive")
    _expect(w.dequant in tuple(Dequant), "dequant", w.dequant, "0, 1 or 2")
    object.__setattr__(w, "dequant", Dequant(w.dequant))
    _expect(
        w.dequant != Dequant.WIDE or w.zeros is not None, "zeros", None, "a tensor: WIDE needs it"
    )
    _expect(w.dequant != Dequant.TWO_FIELD or w.bits == 4, "dequant", w.dequant, "1 or 2 at 8 bits")


def _check_tensors(w: PaddedWeight) -> None:
    for name in _TENSORS:
        tensor = getattr(w, name)
        if tensor is None and name in ("zeros", "columns"):
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(refusal("PaddedWeight", name, type(tensor).__name__, "a Tensor"))
        check_strided("PaddedWeight", name, tensor)
        _expect(tensor.device == w.qweight.device, name, tensor.device, str(w.qweight.device))
        _expect(tensor.is_contiguous(), name, f"strides {tensor.stride()}", "a contiguous tensor")
    _expect(
        w.scales.dtype in (torch.float16, torch.bfloat16), "scales", w.scales.dtype, "fp16 or bf16"
    )
    order = code_order(w.scales.dtype, w.bits)
    is_order = isinstance(w.code_order, str) and w.code_order == order
    _expect(is_order, "code_order", repr(w.code_order), repr(order))
    words = tile_words(w.bits)
    _expect_tensor(w, "qweight", torch.int32, (round_up(w.n, TILE) // TILE, None, words))
    _expect_tensor(w, "scales", w.scales.dtype, (None, w.padded_n))
    rows = w.scales.shape[0]
    if w.zeros is not None:
        _expect_tensor(w, "zeros", torch.int16, (rows, w.padded_n))
    _expect_tensor(w, "slice_rows", torch.int32, (w.padded_k // SLICE,))
    if w.columns is not None:
        _expect_tensor(w, "columns", torch.int32, (w.padded_k,))
    fits = w.front_pad + w.k <= w.padded_k and (w.columns is None or w.front_pad == 0)
    _expect(
        0 <= w.front_pad < TILE and fits,
        "front_pad",
        w.front_pad,
        f"k = {w.k} rows behind it within {w.padded_k} (0 where columns are given)",
    )


def _expect_tensor(
    w: PaddedWeight, name: str, dtype: torch.dtype, shape: tuple[int | None, ...]
) -> None:
    """None stands for any positive size."""
    tensor = getattr(w, name)
    matches = len(tensor.shape) == len(shape) and all(
        got >= 1 if want is None else got == want
        for got, want in zip(tensor.shape, shape, strict=True)
    )
    _expect(
        tensor.dtype == dtype and matches,
        name,
        f"{tensor.dtype} {tuple(tensor.shape)}",
        f"{dtype} {tuple('any' if size is None else size for size in shape)}",
    )


def _check_tables(w: PaddedWeight) -> None:
    """Values, not only sizes: a kernel follows these tables."""
    if w.qweight.is_meta:
        return
    low, high = (int(v) for v in torch.aminmax(w.slice_rows))
    rows = w.scales.shape[0]
    _expect(low >= 0 and high < rows, "slice_rows", f"{low} .. {high}", f"0 .. {rows - 1}")
    if w.columns is not None:
        present = w.columns[w.columns != -1]
        expected = torch.arange(w.k, dtype=torch.int32, device=w.columns.device)
        _expect(
            present.numel() == w.k and torch.equal(present.sort().values, expected),
            "columns",
            f"{present.numel()} entries other than -1",
            f"each of 0 .. {w.k - 1} once",
        )
