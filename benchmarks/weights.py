# SPDX-License-Identifier: Apache-2.0
"""Random quantized weights in a checkpoint's form, made on the device, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

import padmarlin
from benchmarks.cases import Case

# Scales of real checkpoints: weights of about 0.02 make a group's largest 0.06, over 7 or 127.
# Below 2^-8 = 0.0039, the bound up to which 8 bits at fp16 take the cheap dequantization.
SCALES = {4: (0.002, 0.0035), 8: (0.0002, 0.0005)}


@dataclass(frozen=True)
class Weight:
    """A GPTQ weight of one case, zero points stored as they are."""

    case: Case
    qweight: Tensor  # int32 (ceil(k * bits / 32), n): codes, lowest bits first along k
    scales: Tensor  # dtype (groups, n): every group that the rows touch, all with act-order
    zeros: Tensor | None  # uint8 (groups, n); None: 2^(bits - 1) everywhere
    g_idx: Tensor | None  # int32 (k), global: act-order

    @property
    def dtype(self) -> torch.dtype:
        return self.scales.dtype

    def row_groups(self) -> Tensor:
        """The row of `scales` of each row of the weight."""
        part = self.case.part
        if self.g_idx is not None:
            return self.g_idx.long()
        rows = torch.arange(part.k, device=self.scales.device) + part.k_start
        return rows * 0 if part.group == -1 else rows // part.group - part.k_start // part.group

    def codes(self) -> Tensor:
        """uint8 (k, n)."""
        bits, k = self.case.coding.bits, self.case.part.k
        shifts = torch.arange(0, 32, bits, device=self.qweight.device, dtype=torch.int32)
        words = self.qweight[:, None, :] >> shifts[None, :, None]
        return (words & (2**bits - 1)).to(torch.uint8).flatten(0, 1)[:k]

    def dense(self) -> Tensor:
        """(k, n) in the weight's dtype: (q - z) * s, rounded once, as padmarlin defines it."""
        groups = self.row_groups()
        middle = 2 ** (self.case.coding.bits - 1)
        zeros = middle if self.zeros is None else self.zeros[groups].float()
        # Exact in fp32: 9 bits times 11.
        return ((self.codes().float() - zeros) * self.scales[groups].float()).to(self.dtype)

    def padded(self, front: int, k: int, n: int) -> Weight:
        """The same weight in a (k, n) matrix that begins `front` rows earlier, at a group's start.

        Padding holds the zero point of symmetric codes, its scales are the first one's."""
        part, bits = self.case.part, self.case.coding.bits
        added = (0, n - part.n, front, k - front - part.k)
        codes = torch.nn.functional.pad(self.codes(), added, value=2 ** (bits - 1))
        larger = replace(part, k=k, n=n, k_start=0)
        case = replace(self.case, part=larger)
        more = (0, n - part.n, 0, case.groups - self.scales.shape[0])
        scales = torch.nn.functional.pad(self.scales, more, value=float(self.scales[0, 0]))
        zeros = None if self.zeros is None else torch.nn.functional.pad(self.zeros, more)
        return Weight(case, pack_rows(codes, bits), scales, zeros, None)

    def packed_zeros(self) -> Tensor | None:
        """int32 (groups, ceil(n * bits / 32)), lowest bits first along n."""
        if self.zeros is None:
            return None
        return pack_rows(self.zeros.t(), self.case.coding.bits).t().contiguous()

    def repack(self) -> padmarlin.PaddedWeight:
        part, coding = self.case.part, self.case.coding
        return padmarlin.repack_gptq(
            self.qweight,
            self.scales,
            self.packed_zeros(),
            self.g_idx,
            bits=coding.bits,
            group_size=part.group,
            k=part.k,
            checkpoint_format="gptq_v2",
            k_start=part.k_start,
        )


def pack_rows(codes: Tensor, bits: int) -> Tensor:
    """uint8 (k, n) to int32 (ceil(k * bits / 32), n), lowest bits first."""
    per_word = 32 // bits
    padded = torch.nn.functional.pad(codes, (0, 0, 0, -codes.shape[0] % per_word))
    words = torch.zeros(
        (padded.shape[0] // per_word, codes.shape[1]), dtype=torch.int32, device=codes.device
    )
    for place in range(per_word):
        words |= padded[place::per_word].to(torch.int32) << (place * bits)
    return words


def random_weight(case: Case, device: str, seed: int = 0) -> Weight:
    part, coding = case.part, case.coding
    random = torch.Generator(device).manual_seed(seed)
    rows = -(-part.k * coding.bits // 32)
    words = torch.randint(
        -(2**31), 2**31, (rows, part.n), generator=random, device=device, dtype=torch.int64
    )
    g_idx, groups = None, case.groups
    if coding.act_order:
        order = torch.randperm(part.layer.k, generator=random, device=device)
        g_idx = (order // part.group)[part.k_start : part.k_start + part.k].to(torch.int32)
        groups = -(-part.layer.k // part.group)
    low, high = SCALES[coding.bits]
    scales = torch.rand((groups, part.n), generator=random, device=device) * (high - low) + low
    zeros = None
    if not coding.symmetric:
        zeros = torch.randint(
            0, 2**coding.bits, (groups, part.n), generator=random, device=device, dtype=torch.uint8
        )
    dtype = getattr(torch, coding.dtype)
    return Weight(case, words.to(torch.int32), scales.to(dtype), zeros, g_idx)


def random_activations(case: Case, device: str, seed: int = 1) -> Tensor:
    random = torch.Generator(device).manual_seed(seed + case.m)
    a = torch.randn((case.m, case.part.k), generator=random, device=device)
    return a.to(getattr(torch, case.coding.dtype))
