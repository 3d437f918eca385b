# SPDX-License-Identifier: Apache-2.0
"""A small ragged subset of tests/test_kernels.py as a plain program, for compute-sanitizer:

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python -m tests.sanitize

Tensors end where their data ends, so that a byte too far is outside the allocation; without the
variable torch would carve them out of larger ones. `--device cpu` checks the program itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch

import padmarlin
from padmarlin.layout import Dequant
from padmarlin.packing import Packing
from tests.weights import RandomWeight, pack_rows, random_weight

SEED = 1


@dataclass(frozen=True)
class Problem:
    m: int
    k: int
    n: int
    bits: int = 4
    group_size: int = 64
    k_start: int = 0
    symmetric: bool = True
    act_order: bool = False
    dtype: torch.dtype = torch.float16
    scale: float = 0.003
    pitch: int = 0  # of A's rows, beyond k
    batch_invariant: bool = False

    def weight(self) -> RandomWeight:
        return random_weight(
            self.k, self.n, bits=self.bits, group_size=self.group_size, symmetric=self.symmetric,
            dtype=self.dtype, scale=self.scale, act_order=self.act_order, k_start=self.k_start,
            seed=SEED,
        )  # fmt: skip


# The largest scale decides the dequantization (layout.choose_dequant): one scale for each kind.
SCALES = {Dequant.TWO_FIELD: 0.003, Dequant.ONE_FIELD: 0.2, Dequant.WIDE: 3.0}


def problems() -> Iterator[Problem]:
    # Every kernel instance: dtype, bits, dequantization, symmetry, M tiles of 8, 16, 32, 64 rows.
    for dtype in (torch.float16, torch.bfloat16):
        for bits in (4, 8):
            for kind, scale in SCALES.items():
                if bits == 8 and kind == Dequant.TWO_FIELD:
                    scale = 0.0009
                for symmetric in (True, False):
                    for m in (1, 12, 18, 70):
                        yield Problem(
                            m, 130, 67, bits, 32, symmetric=symmetric, dtype=dtype, scale=scale
                        )
    # The three ragged ways of K and N, every width of copy, a row pitch, a gather.
    yield Problem(7, 115, 129, group_size=16, k_start=3)
    yield Problem(5, 1, 1, group_size=-1)
    for k in (96, 92, 90, 89):
        yield Problem(17, k, 80, group_size=32, pitch=k % 8)
    for group_size in (24, 64):
        yield Problem(9, 300, 130, group_size=group_size, act_order=True, symmetric=False)
    # K split over blocks that share a reduction.
    for m in (1, 19):
        yield Problem(m, 64 * 40, 70)
        yield Problem(m, 64 * 40 - 3, 321, bits=8, batch_invariant=True)


def run(problem: Problem, device: str) -> Dequant:
    """Multiplies, checks the result, and says which dequantization that took."""
    made = problem.weight()
    generator = torch.Generator().manual_seed(SEED)
    a = torch.randn((problem.m, problem.k + problem.pitch), generator=generator).to(problem.dtype)
    a = a.to(device)[:, : problem.k]
    bias = torch.randn(problem.n, generator=generator).to(problem.dtype)
    got = padmarlin.gemm(
        a, made.packed.to(device), bias.to(device), batch_invariant=problem.batch_invariant
    )
    exact = a.double().cpu() @ made.dense.double() + bias.double()
    own = (a.float().cpu() @ made.dense.float() + bias.float()).to(problem.dtype)
    limit = 2 * (own.double() - exact).norm() + 1e-6 * exact.norm()
    error = (got.double().cpu() - exact).norm()
    if not error <= limit:
        sys.exit(f"sanitize: {problem}: error {error:.3e}, limit {limit:.3e}")
    if not torch.equal(padmarlin.dequantize(made.packed.to(device)).cpu(), made.dense):
        sys.exit(f"sanitize: {problem}: dequantize is not exact")
    return made.packed.dequant


def repack(bits: int, pads: bool, device: str) -> None:
    generator = torch.Generator().manual_seed(SEED)
    k, n, padded_k, rows = 117, 90, 192, 3
    qweight = pack_rows(torch.randint(0, 1 << bits, (k, n), generator=generator), bits)
    source_rows = torch.randperm(padded_k, generator=generator).to(torch.int32)
    source_rows[source_rows >= k] = -1
    slice_rows = torch.randint(0, rows, (padded_k // 16,), generator=generator, dtype=torch.int32)
    pad_codes = torch.randint(0, 1 << bits, (rows, 128), generator=generator).to(torch.uint8)
    tensors = (qweight, source_rows, slice_rows, pad_codes if pads else None)
    numbers = (Packing.GPTQ, 0, n, bits, 0)
    want = torch.ops.padmarlin.repack(*tensors, *numbers)
    there = [None if tensor is None else tensor.to(device) for tensor in tensors]
    got = torch.ops.padmarlin.repack(*there, *numbers).cpu()
    if not torch.equal(got, want):
        sys.exit(f"sanitize: repack, {bits} bits, pad codes {pads}: differs from the CPU's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    device = parser.parse_args().device
    todo = list(problems())
    kinds = {(problem.bits, run(problem, device)) for problem in todo}
    if len(kinds) != 5:
        sys.exit(f"sanitize: {sorted(kinds)} occurred, expected five (bits, dequantization)")
    for bits in (4, 8):
        for pads in (False, True):
            repack(bits, pads, device)
    print(f"sanitize: {len(todo)} products and 4 repackings on {device}, all right")


main()
