# SPDX-License-Identifier: Apache-2.0
"""The benchmark's random weights: their own meaning against what padmarlin makes of them."""

from __future__ import annotations

import pytest
import torch

import padmarlin
from benchmarks.peers.own import aligned, whole_tiles
from benchmarks.weights import pack_rows, random_activations, random_weight
from tests.benchmarks.double import make_case

CASES = [
    make_case(),
    make_case(k=130, n=33, group=32),
    make_case(k=200, n=50, k_start=200, group=128),
    make_case(k=112, n=64, k_start=112, group=128, bits=8),
    make_case(k=192, n=40, symmetric=False),
    make_case(k=190, n=41, k_start=190, group=128, symmetric=False, bits=8),
    make_case(k=100, n=64, group=-1),
    make_case(k=192, act_order=True),
    make_case(k=96, k_start=96, whole=384, act_order=True, symmetric=False),
    make_case(dtype="bfloat16", symmetric=False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_padmarlin_reads_the_same_weight(case):
    weight = random_weight(case, "cpu")
    packed = weight.repack()
    assert torch.equal(padmarlin.dequantize(packed), weight.dense())
    assert packed.dtype == getattr(torch, case.coding.dtype)
    assert (packed.zeros is None) == case.coding.symmetric
    assert (packed.columns is not None) == case.coding.act_order


def test_codes_survive_packing():
    generator = torch.Generator().manual_seed(0)
    for bits, k in ((4, 16), (4, 13), (8, 8), (8, 5)):
        codes = torch.randint(0, 2**bits, (k, 6), generator=generator, dtype=torch.uint8)
        case = make_case(k=k, n=6, bits=bits)
        weight = random_weight(case, "cpu")
        object.__setattr__(weight, "qweight", pack_rows(codes, bits))
        assert torch.equal(weight.codes(), codes), (bits, k)


@pytest.mark.parametrize("case", [c for c in CASES if not c.coding.act_order], ids=str)
def test_a_padded_weight_computes_the_same_columns(case):
    weight = random_weight(case, "cpu")
    front, k, n = whole_tiles(case)
    larger = weight.padded(front, k, n)
    assert (k % 128, n % 64) == (0, 0)
    assert larger.case.part.k_start == 0 and case.part.k_start >= front
    rows = slice(front, front + case.part.k)
    assert torch.equal(larger.dense()[rows, : case.part.n], weight.dense())
    assert not larger.case.part.ragged


def test_the_aligned_twin_is_whole_and_no_larger_than_it_must():
    twin = aligned(make_case(k=14784, n=8192, k_start=14784, group=128)).part
    assert (twin.k, twin.n, twin.k_start, twin.ragged) == (14848, 8192, 0, False)
    twin = aligned(make_case(k=8192, n=7391, group=128)).part
    assert (twin.k, twin.n) == (8192, 7424)
    even = make_case(k=256, n=128, group=128)
    assert aligned(even) == even


def test_data_is_random_and_the_same_every_time():
    case = make_case()
    first, second = random_weight(case, "cpu"), random_weight(case, "cpu")
    assert torch.equal(first.qweight, second.qweight)
    assert first.codes().unique().numel() == 16
    a = random_activations(case, "cpu")
    assert a.shape == (case.m, case.part.k) and a.std() > 0.8
