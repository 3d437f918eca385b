# SPDX-License-Identifier: Apache-2.0
"""vLLM's Marlin and Machete, prepared and called as its linear layers do (0.32, 0.33)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.method import Operand
from benchmarks.peers.base import Peer, missing_module, splits_a_group
from benchmarks.weights import Weight


def _missing_op(name: str) -> str | None:
    reason = missing_module("vllm._custom_ops", "pip install vllm")
    if reason is None and not hasattr(torch.ops._C, name):
        return f"this build of vLLM has no {name}"
    return reason


def _type(coding: Any) -> Any:
    from vllm.scalar_type import scalar_types

    if not coding.symmetric:
        return scalar_types.uint4
    return scalar_types.uint4b8 if coding.bits == 4 else scalar_types.uint8b128


def _unpacked_zeros(weight: Weight) -> Tensor | None:
    return None if weight.zeros is None else weight.zeros.to(torch.int32)


@dataclass
class MarlinOperand:
    qweight: Tensor
    scales: Tensor
    zeros: Tensor
    locks: Tensor  # Marlin's own; it leaves them zero
    type: Any
    k: int
    n: int

    def __call__(self, a: Tensor) -> Tensor:
        from vllm.model_executor.layers.quantization.utils import marlin_utils

        return marlin_utils.apply_gptq_marlin_linear(
            input=a,
            weight=self.qweight,
            weight_scale=self.scales,
            weight_zp=self.zeros,
            workspace=self.locks,
            wtype=self.type,
            output_size_per_partition=self.n,
            input_size_per_partition=self.k,
        )


class VllmMarlin(Peer):
    """Pads ragged shapes and slices the result, where no group is split."""

    name = "vllm-marlin"

    def missing(self) -> str | None:
        return _missing_op("marlin_gemm")

    def refuses(self, case: Case) -> str | None:
        part, coding = case.part, case.coding
        if coding.act_order:
            return "has no act-order since vLLM 0.30"
        if coding.bits == 8 and not coding.symmetric:
            return "takes zero points with 4 bits only"
        if part.group not in (-1, 32, 64, 128):
            return "takes groups of 32, 64, 128 or one"
        per_word = 32 // coding.bits
        if part.k % per_word or part.n % 2:
            return f"takes k in whole words of {per_word}, and an even n"
        return splits_a_group(case)

    def prepare(self, weight: Weight) -> Operand:
        from vllm import _custom_ops as ops
        from vllm.model_executor.layers.quantization.utils import marlin_utils as marlin

        part, bits = weight.case.part, weight.case.coding.bits
        k, n, group = part.k, part.n, part.group
        padded_n, padded_k = marlin.marlin_padded_nk(n, k, group)
        words = marlin.marlin_pad_qweight(weight.qweight, n, k, padded_n, padded_k)

        def padded(table: Tensor) -> Tensor:
            return marlin.marlin_pad_scales(table, n, k, padded_n, padded_k, group)

        scales = marlin.marlin_permute_scales(padded(weight.scales), padded_k, padded_n, group)
        zeros = marlin.marlin_make_empty(words.device)
        unpacked = _unpacked_zeros(weight)
        if unpacked is not None:
            table = padded(unpacked)
            zeros = marlin.marlin_zero_points(table, table.shape[0], padded_n, bits)
        return MarlinOperand(
            ops.gptq_marlin_repack(words, padded_k, padded_n, bits),
            scales,
            zeros,
            marlin.marlin_make_workspace_new(words.device, marlin.MARLIN_MAX_BLOCKS_PER_SM),
            _type(weight.case.coding),
            k,
            n,
        )


@dataclass
class MacheteOperand:
    qweight: Tensor
    scales: Tensor
    zeros: Tensor | None
    type: Any
    group: int

    def __call__(self, a: Tensor) -> Tensor:
        from vllm import _custom_ops as ops

        return ops.machete_mm(
            a=a,
            b_q=self.qweight,
            b_type=self.type,
            b_group_scales=self.scales,
            b_group_zeros=self.zeros,
            b_group_size=self.group,
        )


class Machete(Peer):
    """Hopper only; whole tiles only."""

    name = "machete"

    def missing(self) -> str | None:
        reason = _missing_op("machete_mm")
        if reason is None and torch.cuda.get_device_capability() != (9, 0):
            return "needs compute capability 9.0"
        return reason

    def refuses(self, case: Case) -> str | None:
        part, coding = case.part, case.coding
        if coding.act_order:
            return "has no act-order since vLLM 0.30"
        if part.group not in (-1, 64, 128):
            return "takes groups of 64, 128 or one"
        if part.k % 64 or part.n % 128:
            return "takes k in steps of 64 and n in steps of 128"
        if coding.bits == 8 and not coding.symmetric:
            return "takes zero points with 4 bits only"
        return splits_a_group(case)

    def prepare(self, weight: Weight) -> Operand:
        from vllm import _custom_ops as ops

        kind = _type(weight.case.coding)
        packed = ops.machete_prepack_B(
            weight.qweight.t().contiguous().t(), weight.dtype, kind, weight.dtype
        )
        zeros = _unpacked_zeros(weight)
        if zeros is not None:  # it adds them after the scale: -s * z
            zeros = (-1.0 * weight.scales * zeros.to(weight.dtype)).contiguous()
        return MacheteOperand(
            packed, weight.scales.contiguous(), zeros, kind, weight.case.part.group
        )
