# SPDX-License-Identifier: Apache-2.0
"""``QuantLinear``: a quantized linear layer. What it multiplies by are its buffers, so that
``.to(device)``, ``state_dict``, ``copy`` and ``torch.compile`` find it as they find any module."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from padmarlin import _extension, ops
from padmarlin.checkpoint import load_weight
from padmarlin.checkpoint.bias import load_bias
from padmarlin.errors import check_strided, refusal
from padmarlin.layout import TILE, Dequant
from padmarlin.weight import PaddedWeight

_ = ops  # defines torch.ops.padmarlin

_TENSORS = ("qweight", "scales", "zeros", "slice_rows", "columns")
_STATE = (*_TENSORS, "metadata", "bias")


class QuantLinear(nn.Module):
    """``y = x @ dequantize(weight) + bias``, for inference.

    Args:
        weight: from ``repack_*`` or ``load_weight``.
        bias: (n), the weight's dtype and device, or None.
        batch_invariant: a row's bits depend neither on the number of rows nor on the others.

    ``in_features`` and ``out_features`` are those of the whole layer, also where this is one rank's
    part; ``k`` and ``n`` are what is here. The dtype is part of the packing: ``.half()`` and its
    like are refused where they would change it. A layer on the meta device gets its tensors by
    ``load_state_dict``; ``to_empty``, which would leave tables undefined, is refused.
    """

    qweight: Tensor
    scales: Tensor
    zeros: Tensor | None
    slice_rows: Tensor
    columns: Tensor | None
    bias: Tensor | None

    def __init__(
        self, weight: PaddedWeight, bias: Tensor | None = None, *, batch_invariant: bool = False
    ) -> None:
        super().__init__()
        if not isinstance(weight, PaddedWeight):
            remedy = "make one with padmarlin.repack_* or padmarlin.load_weight"
            self._refuse(TypeError, "weight", type(weight).__name__, "a PaddedWeight", remedy)
        if not isinstance(batch_invariant, bool):
            self._refuse(TypeError, "batch_invariant", repr(batch_invariant), "a bool")
        self.batch_invariant = batch_invariant
        for name in _TENSORS:
            self.register_buffer(name, getattr(weight, name))
        self._set_numbers(weight)
        self.in_features, self.out_features = weight.k, weight.n
        self.register_buffer("bias", self._checked_bias(weight, bias))

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint_dir: str | os.PathLike[str],
        name: str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        batch_invariant: bool = False,
    ) -> QuantLinear:
        """The layer `name`, with its bias if it has one; the arguments are ``load_weight``'s."""
        weight = load_weight(checkpoint_dir, name, device=device, dtype=dtype)
        bias = load_bias(checkpoint_dir, name, weight)
        return cls(weight, bias, batch_invariant=batch_invariant)

    @property
    def weight(self) -> PaddedWeight:
        """The weight, checked anew; it shares memory with this layer."""
        return self._weight_of({name: getattr(self, name) for name in _TENSORS})

    @property
    def dtype(self) -> torch.dtype:
        """What activations must be."""
        return self.scales.dtype

    def forward(self, x: Tensor) -> Tensor:
        """(..., k) -> (..., n)."""
        return self._multiply(x, self.bias)

    def extra_repr(self) -> str:
        gather = ", gather" if self.columns is not None else ""
        symmetry = "symmetric" if self.zeros is None else "asymmetric"
        padded = f"{self.qweight.shape[1] * TILE} x {self.qweight.shape[0] * TILE}"
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, bits={self.bits}, group_size={self.group_size}, "
            f"{symmetry}, {self.k} x {self.n} padded to {padded}{gather}, {self.dtype}"
        )

    # ---- for subclasses

    def _multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        self._check_input(x, self.k)
        tensors = self._buffers  # each attribute would search the module's three dictionaries
        is_matrix = x.dim() == 2
        y = torch.ops.padmarlin.gemm(
            x if is_matrix else x.reshape(-1, self.k),
            tensors["qweight"],
            tensors["scales"],
            tensors["zeros"],
            tensors["slice_rows"],
            tensors["columns"],
            bias,
            self.k,
            self.n,
            self.bits,
            self._front_pad,
            self._dequant,
            self.batch_invariant,
        )
        return y if is_matrix else y.view(*x.shape[:-1], self.n)

    def _check_input(self, x: Any, width: int) -> None:
        if not isinstance(x, Tensor):
            self._refuse(TypeError, "x", type(x).__name__, "a Tensor")
        check_strided(type(self).__name__, "x", x)
        scales = self._buffers["scales"]
        assert scales is not None
        if x.dtype != scales.dtype:
            remedy = f"x.to({self.dtype})"
            if x.dtype in (torch.float16, torch.bfloat16):
                remedy += f", or load the layer with dtype={x.dtype}"
            self._refuse(TypeError, "x", x.dtype, self.dtype, remedy)
        if x.device != scales.device:
            remedy = f"layer.to({str(x.device)!r}), once, after loading"
            if x.is_meta or scales.is_meta:
                remedy = "use a layer and an x that hold data"
            self._refuse(ValueError, "x", x.device, scales.device, remedy)
        if x.dim() == 0 or x.shape[-1] != width:
            self._refuse(ValueError, "x", f"shape {tuple(x.shape)}", f"(..., {width})")
        if x.requires_grad and torch.is_grad_enabled():
            remedy = "call it under torch.no_grad() or torch.inference_mode()"
            self._refuse(RuntimeError, "x", "a tensor that requires grad", "inference", remedy)
        if x.is_cuda:
            _extension.require_extension(type(self).__name__, "x")

    def _refuse(
        self, kind: type[Exception], argument: str, got: object, expected: object, remedy: str = ""
    ) -> NoReturn:
        raise kind(refusal(type(self).__name__, argument, got, expected, remedy))

    def _checked_bias(self, weight: PaddedWeight, bias: Any) -> Tensor | None:
        if bias is None:
            return None
        if not isinstance(bias, Tensor):
            self._refuse(TypeError, "bias", type(bias).__name__, "a Tensor or None")
        check_strided(type(self).__name__, "bias", bias)
        if tuple(bias.shape) != (weight.n,):
            expected = f"({weight.n},) = (n,)"
            self._refuse(ValueError, "bias", f"shape {tuple(bias.shape)}", expected)
        if bias.dtype != weight.dtype:
            self._refuse(TypeError, "bias", bias.dtype, weight.dtype, f"bias.to({weight.dtype})")
        if bias.device != weight.device:
            remedy = f"bias.to({str(weight.device)!r})"
            self._refuse(ValueError, "bias", bias.device, weight.device, remedy)
        return bias.detach().contiguous()

    # ---- as a module

    def _set_numbers(self, weight: PaddedWeight) -> None:
        self.k, self.n, self.bits = weight.k, weight.n, weight.bits
        self.group_size = weight.group_size
        self._front_pad, self._dequant = weight.front_pad, int(weight.dequant)
        self._code_order, self._format_version = weight.code_order, weight.format_version

    def _weight_of(self, tensors: dict[str, Any]) -> PaddedWeight:
        return PaddedWeight(
            **tensors,
            k=self.k,
            n=self.n,
            bits=self.bits,
            group_size=self.group_size,
            front_pad=self._front_pad,
            dequant=Dequant(self._dequant),
            code_order=self._code_order,
            format_version=self._format_version,
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantLinear:
        """What ``.to``, ``.half`` and ``to_empty`` call. Nothing changes if it refuses."""
        present = {name: t for name, t in self._buffers.items() if t is not None}
        moved = {name: fn(tensor) for name, tensor in present.items()}
        if moved["scales"].dtype != self.dtype:
            remedy = "repack or load the checkpoint with dtype=... instead"
            got = f"a conversion to {moved['scales'].dtype}"
            self._refuse(TypeError, "dtype", got, f"{self.dtype}, as it is packed", remedy)
        self._weight_of({name: moved.get(name) for name in _TENSORS})
        replacement = {id(present[name]): tensor for name, tensor in moved.items()}
        super()._apply(lambda t: replacement[id(t)] if id(t) in replacement else fn(t), recurse)
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "metadata"] = self.weight.state_dict()["metadata"]

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        needed = ["qweight", "scales", "slice_rows", "metadata"]
        needed += ["bias"] if self.bias is not None else []
        missing = [prefix + name for name in needed if prefix + name not in state_dict]
        missing_keys += missing
        if strict:
            known = {prefix + name for name in _STATE if name != "bias" or "bias" in needed}
            unexpected_keys += [
                key for key in state_dict if key.startswith(prefix) and key not in known
            ]
        if missing:
            return
        try:
            weight = PaddedWeight.from_state_dict(state_dict, prefix)
            bias = self._checked_bias(weight, state_dict.get(prefix + "bias"))
            self._check_same(weight)
        except (TypeError, ValueError) as error:
            error_msgs.append(str(error))
            return
        self._set_numbers(weight)
        loaded = {name: getattr(weight, name) for name in _TENSORS}
        loaded |= {"bias": bias if self.bias is not None else None}
        assign = local_metadata.get("assign_to_params_buffers", False)
        if not assign:
            device = weight.device if self.qweight.is_meta else self.qweight.device
            loaded = _copied({name: self._buffers[name] for name in loaded}, loaded, device)
        self._buffers.update(loaded)

    def _check_same(self, weight: PaddedWeight) -> None:
        got, expected = (weight.k, weight.n, weight.dtype), (self.k, self.n, self.dtype)
        if got != expected:
            self._refuse(ValueError, "state_dict", got, f"{expected} = (k, n, dtype)")


def _copied(
    own: dict[str, Tensor | None], new: dict[str, Tensor | None], device: torch.device
) -> dict[str, Tensor | None]:
    """Copies of `new` on `device`: in the memory of `own`, where captured CUDA graphs look, if all
    of them fit there. Some alone would leave a PaddedWeight that shares this memory with tables
    that do not belong together."""
    fits = all(_fits(own[name], tensor, device) for name, tensor in new.items())
    copies: dict[str, Tensor | None] = {}
    for name, tensor in new.items():
        place = own[name] if fits else None
        if tensor is None or place is None:
            copies[name] = None if tensor is None else tensor.detach().to(device, copy=True)
        else:
            copies[name] = place.copy_(tensor)
    return copies


def _fits(own: Tensor | None, new: Tensor | None, device: torch.device) -> bool:
    if own is None or new is None:
        return own is new
    return own.device == device and own.shape == new.shape
