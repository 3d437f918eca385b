# SPDX-License-Identifier: Apache-2.0
"""A small ragged subset of the kernels' tests as a plain program, for compute-sanitizer:

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python -m tests.sanitize

Tensors end where their data ends, so that a byte too far is outside the allocation; without the
variable torch would carve them out of larger ones. `--device cpu` checks the program itself.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

import padmarlin
from padmarlin._extension import force_kernel
from padmarlin.layout import Dequant
from padmarlin.packing import Packing, packs
from tests.weights import RandomWeight, random_weight, random_words

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


# Where the dispatcher takes wgmma tiles of 48, 64, .. 160 rows on an H200: 4 x 32 tiles leave no
# better choice for its 132 SMs. tests/test_select_gemm.py holds that.
WGMMA_ROWS = range(48, 161, 16)
WGMMA_COLUMNS = 8191


def m_for_tiles_of(rows: int) -> int:
    return 4 * rows - 3


def problems() -> Iterator[Problem]:
    # Every kernel instance: dtype, bits, dequantization, symmetry; M tiles of 8, 16, 32, 64 rows of
    # the mma kernel, which batch_invariant takes for any m, and the wgmma kernel's.
    for dtype, bits in itertools.product((torch.float16, torch.bfloat16), (4, 8)):
        for kind, scale in SCALES.items():
            if bits == 8 and kind == Dequant.TWO_FIELD:
                scale = 0.0009
            for symmetric in (True, False):
                same = {"symmetric": symmetric, "dtype": dtype, "scale": scale}
                for m in (1, 12, 18):
                    yield Problem(m, 130, 67, bits, 32, **same)
                yield Problem(70, 130, 67, bits, 32, **same, batch_invariant=True)
                for rows in WGMMA_ROWS:
                    yield Problem(m_for_tiles_of(rows), 130, WGMMA_COLUMNS, bits, 32, **same)
    # wgmma: a front pad, the pass that aligns A with and without a gather, tiles in parts.
    yield Problem(70, 115, 129, group_size=16, k_start=3)
    for k in (96, 89):
        yield Problem(170, k, 80, group_size=32, pitch=k % 8)
    yield Problem(70, 300, 130, group_size=24, act_order=True, symmetric=False)
    yield Problem(70, 64 * 40, 70)
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


def scratch_problems() -> Iterator[Problem]:
    """For the scratch, which is forced: both rounding kernels, a front pad, a gather, odd pitches.
    Every dequantize kernel is the same as padmarlin.dequantize's, which the suite covers."""
    for dtype, bits, n in itertools.product((torch.float16, torch.bfloat16), (4, 8), (64, 67)):
        yield Problem(70, 130, n, bits, 32, dtype=dtype, symmetric=bits == 4)
    yield Problem(9, 115, 129, group_size=16, k_start=3, pitch=2)
    yield Problem(70, 300, 130, group_size=24, act_order=True, symmetric=False)
    yield Problem(1, 1, 1, group_size=-1)


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
    return made.packed.dequant


@contextmanager
def forced_scratch() -> Iterator[None]:
    force_kernel("scratch")
    try:
        yield
    finally:
        force_kernel("auto")


def repack(packing: Packing, bits: int, pads: bool, device: str) -> None:
    generator = torch.Generator().manual_seed(SEED)
    k, n, padded_k, rows = 117, 90, 192, 3
    words = random_words(k, n, packing, bits, seed=SEED)
    source_rows = torch.randperm(padded_k, generator=generator).to(torch.int32)
    source_rows[source_rows >= k] = -1
    slice_rows = torch.randint(0, rows, (padded_k // 16,), generator=generator, dtype=torch.int32)
    pad_codes = torch.randint(0, 1 << bits, (rows, 128), generator=generator).to(torch.uint8)
    tensors = (words, source_rows, slice_rows, pad_codes if pads else None)
    want = torch.ops.padmarlin.repack(*tensors, packing, 0, n, bits, 0)
    there = [None if tensor is None else tensor.to(device) for tensor in tensors]
    got = torch.ops.padmarlin.repack(*there, packing, 0, n, bits, 0).cpu()
    if not torch.equal(got, want):
        sys.exit(f"sanitize: repack, {packing}, {bits} bits, pad codes {pads}: not as on the CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    device = parser.parse_args().device
    todo = list(problems())
    kinds = {(problem.bits, run(problem, device)) for problem in todo}
    by_scratch = list(scratch_problems())
    with forced_scratch() if device == "cuda" else nullcontext():
        for problem in by_scratch:
            run(problem, device)
    if len(kinds) != 5:
        sys.exit(f"sanitize: {sorted(kinds)} occurred, expected five (bits, dequantization)")
    repackings = [
        (packing, bits, pads)
        for packing, bits, pads in itertools.product(Packing, (4, 8), (False, True))
        if packs(packing, bits)
    ]
    for repacking in repackings:
        repack(*repacking, device)
    products = len(todo) + len(by_scratch)
    print(f"sanitize: {products} products and {len(repackings)} repackings on {device}, all right")


if __name__ == "__main__":
    main()
