# SPDX-License-Identifier: Apache-2.0
"""The wgmma kernel on the weights that repack_gptq, repack_awq and repack_compressed_tensors make:
shards that begin inside a group, act-order through the pass that aligns A, every dequantization,
every instance. On the emulator, and on a device of compute capability 9.0.

What is expected comes from the codes themselves, not from this package's dequantize."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import padmarlin
from padmarlin import _extension
from padmarlin.layout import TILE, Dequant, round_up
from padmarlin.packing import Packing
from padmarlin.partition import Shard
from tests.kernels import NAN, CudaRun, EmulatedRun, cuda_skip_reason, emulator
from tests.sanitize import WGMMA_COLUMNS, m_for_tiles_of
from tests.test_kernels import activations, assert_as_good_as_torch, assert_equal
from tests.weights import pack_rows, pack_words, random_weight

DTYPES = [torch.float16, torch.bfloat16]
ROWS = [48, 64, 80, 96, 112, 128, 144, 160]  # of a block's tile
M = [33, 48, 65, 96, 128, 144, 161, 300]  # around the tiles; 33: the dispatcher's first


def wgmma_skip_reason() -> str | None:
    """Why the dispatcher would not take the wgmma kernel on this machine's device, or None."""
    reason = cuda_skip_reason()
    if reason is not None:
        return reason
    if torch.cuda.get_device_capability() != (9, 0):
        return "wgmma exists on compute capability 9.0 alone"
    if "sm_90a" not in _extension.extension_status().build_info["architectures"]:
        return "the library was built without sm_90a"
    return None


@pytest.fixture(params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def runner(request):
    """Where the dispatcher takes the wgmma kernel for M > 32."""
    if request.param == "emulator":
        emulator()
        return EmulatedRun(wgmma=True)
    reason = wgmma_skip_reason()
    if reason is not None:
        pytest.skip(reason)
    return CudaRun()


@dataclass(frozen=True)
class Layer:
    """A quantized matrix and what a checkpoint holds of it. Seed 5."""

    k: int
    n: int
    packing: Packing = Packing.GPTQ
    bits: int = 4
    group_size: int = 32
    symmetric: bool = True
    act_order: bool = False
    scale: float = 0.003

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes (k, n), zero points and scales (groups, n), and the group of each row."""
        generator = torch.Generator().manual_seed(5)
        groups = 1 if self.group_size == -1 else -(-self.k // self.group_size)
        codes = torch.randint(0, 1 << self.bits, (self.k, self.n), generator=generator)
        zeros = torch.full((groups, self.n), 1 << (self.bits - 1))
        if not self.symmetric:
            zeros = torch.randint(0, 1 << self.bits, (groups, self.n), generator=generator)
        scales = (torch.rand((groups, self.n), generator=generator) + 1) * self.scale / 2
        g_idx = torch.arange(self.k) // (self.k if self.group_size == -1 else self.group_size)
        if self.act_order:
            g_idx = g_idx[torch.randperm(self.k, generator=generator)]
        return codes, zeros, scales, g_idx

    def dense(self, dtype: torch.dtype) -> Tensor:
        codes, zeros, scales, g_idx = self.parts()
        rounded = scales.to(dtype).double()
        return ((codes - zeros[g_idx]) * rounded[g_idx]).float().to(dtype)

    def repacked(self, dtype: torch.dtype, shard: Shard | None = None) -> padmarlin.PaddedWeight:
        codes, zeros, scales, g_idx = self.parts()
        words = pack_words(codes, self.packing, self.bits)
        scales = scales.to(dtype)
        asked = {"bits": self.bits, "group_size": self.group_size, "shard": shard}
        if self.packing == Packing.AWQ:
            packed_zeros = pack_words(zeros, Packing.AWQ, self.bits)
            return padmarlin.repack_awq(words, scales, packed_zeros, **asked)
        by_column = pack_rows(zeros.t(), self.bits)
        own_idx = g_idx.to(torch.int32) if self.act_order else None
        if self.packing == Packing.GPTQ:
            return padmarlin.repack_gptq(
                words, scales, by_column.t().contiguous(), own_idx, k=self.k,
                checkpoint_format="gptq_v2", **asked,
            )  # fmt: skip
        return padmarlin.repack_compressed_tensors(
            words, scales.t().contiguous(), None if self.symmetric else by_column, own_idx,
            weight_shape=(self.n, self.k), sym=self.symmetric, **asked,
        )  # fmt: skip


LAYERS = {
    "gptq": Layer(256, 300),
    "gptq, odd n, k % 8 = 3": Layer(171, 131),
    "gptq, groups of 24 rows": Layer(216, 70, group_size=24),
    "gptq, one group": Layer(200, 64, group_size=-1),
    "gptq, asymmetric, one_field": Layer(136, 321, symmetric=False, scale=0.2),
    "gptq, wide": Layer(130, 257, scale=3.0),
    "gptq, 8 bits": Layer(132, 129, bits=8, scale=0.0009),
    "gptq, 8 bits, asymmetric, wide": Layer(132, 260, bits=8, symmetric=False, scale=3.0),
    "gptq, act-order": Layer(192, 130, act_order=True, symmetric=False),
    "gptq, act-order, groups of 24 rows": Layer(144, 65, act_order=True, group_size=24),
    "awq": Layer(256, 304, Packing.AWQ, symmetric=False),
    "awq, k % 8 = 5": Layer(141, 64, Packing.AWQ, group_size=16, symmetric=False),
    "compressed-tensors": Layer(256, 127, Packing.COMPRESSED_TENSORS),
    "compressed-tensors, asymmetric": Layer(
        160, 200, Packing.COMPRESSED_TENSORS, symmetric=False, scale=0.2
    ),
    "compressed-tensors, 8 bits, act-order": Layer(
        128, 72, Packing.COMPRESSED_TENSORS, bits=8, act_order=True, scale=0.0009
    ),
}


def bias_of(n: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(2)).to(dtype)


# ---- checkpoints


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_identity_activations_give_the_weight_bit_for_bit(runner, name, dtype):
    layer = LAYERS[name]
    got = runner.gemm(torch.eye(layer.k, dtype=dtype), layer.repacked(dtype))
    assert_equal(got, layer.dense(dtype), (name, dtype))


@pytest.mark.parametrize("m", M)
@pytest.mark.parametrize("name", LAYERS)
def test_every_checkpoint_at_every_m(runner, name, m):
    layer, dtype = LAYERS[name], DTYPES[m % 2]
    a, bias = activations(m, layer.k, dtype), bias_of(layer.n, dtype)
    got = runner.gemm(a, layer.repacked(dtype), bias)
    assert_as_good_as_torch(got, a, layer.dense(dtype), bias, (name, m))


# k of a rank: a shard begins at row 100, 171 (odd), 60, .. of groups of 32, 128, 24 rows.
SHARDS = [(200, 2, 32), (342, 2, 128), (240, 4, 128), (288, 3, 24), (208, 2, 8), (260, 4, 16)]


@pytest.mark.parametrize("m", [65, 161])
@pytest.mark.parametrize("axis", ["k", "n"])
@pytest.mark.parametrize(("k", "world_size", "group_size"), SHARDS)
def test_shards_that_begin_inside_a_group(runner, k, world_size, group_size, axis, m):
    layer, dtype = Layer(k, 120, group_size=group_size, symmetric=False), DTYPES[m % 2]
    dense = layer.dense(dtype)
    for rank in range(world_size):
        shard = Shard(axis, rank, world_size)
        weight = layer.repacked(dtype, shard)
        cut = slice(*shard.bounds(k if axis == "k" else layer.n))
        own = dense[cut] if axis == "k" else dense[:, cut]
        a = activations(m, weight.k, dtype, seed=rank)
        got = runner.gemm(a, weight)
        assert_as_good_as_torch(got, a, own, None, (k, world_size, group_size, axis, rank, m))


# ---- A and the output as callers have them

# Elements before A's first, and beyond k in each row: aligned for TMA in the first and the fourth.
READS = [(0, 0), (8, 4), (4, 0), (8, 16), (1, 3), (0, 7), (3, 32), (0, 2)]


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(("offset", "extra"), READS)
def test_activations_are_read_whatever_their_alignment(runner, offset, extra, act_order):
    layer, dtype = Layer(96, 80, act_order=act_order), torch.float16
    a = activations(70, 96, dtype, offset=offset, pitch=96 + offset + extra)
    got = runner.gemm(a, layer.repacked(dtype))
    assert_as_good_as_torch(got, a, layer.dense(dtype), None, (offset, extra, act_order))


@pytest.mark.parametrize("pitch", [0, 8, 64, 96])
def test_rows_of_a_may_overlap(runner, pitch):
    """One row expanded, or windows over a sequence: legal views whose stride is less than k."""
    layer, dtype = Layer(104, 70), torch.float16
    sequence = torch.randn(104 + 69 * pitch, generator=torch.Generator().manual_seed(3)).to(dtype)
    a = sequence.as_strided((70, 104), (pitch, 1))
    got = runner.gemm(a, layer.repacked(dtype))
    assert_as_good_as_torch(got, a, layer.dense(dtype), None, pitch)


def test_the_copy_engine_never_sees_rows_that_overlap():
    """What the test above rests on: the emulator refuses them without the pass that aligns A."""
    native = emulator()
    weight = Layer(104, 70).repacked(torch.float16)
    a = torch.zeros(104 + 69 * 8, dtype=torch.float16).as_strided((70, 104), (8, 1))
    assert EmulatedRun(wgmma_rows=64).choice(a, weight, False).aligns_activations

    class Unaligned(EmulatedRun):
        def choice(self, a, weight, batch_invariant):
            return super().choice(a.contiguous(), weight, batch_invariant)

    with pytest.raises(native.LaunchError, match="rows overlap"):
        Unaligned(wgmma_rows=64).gemm(a, weight)


def test_the_dispatcher_takes_the_wgmma_kernel():
    """What all tests here rest on."""
    native = emulator()
    weight = Layer(64, 64).repacked(torch.float16)
    for m in M:
        choice = EmulatedRun(wgmma=True).choice(torch.zeros(m, 64).half(), weight, False)
        assert choice.family == native.Family.WGMMA, m


@pytest.mark.parametrize("n", [1, 2, 63, 65, 130, 256, 261])
@pytest.mark.parametrize(("offset", "extra"), [(0, 0), (1, 0), (2, 6), (3, 1), (8, 8)])
def test_the_output_is_written_in_place_and_nothing_else(runner, n, offset, extra):
    layer, dtype = Layer(64, n), torch.float16
    a, bias = activations(67, 64, dtype), bias_of(n, dtype)
    pitch = n + offset + extra
    buffer = torch.full((69, pitch), NAN, dtype=dtype)
    out = buffer.flatten().as_strided((67, n), (pitch, 1), pitch + offset)
    runner.gemm(a, layer.repacked(dtype), bias, out=out)
    assert_as_good_as_torch(out, a, layer.dense(dtype), bias, (n, offset, extra))
    written = torch.zeros((69, pitch), dtype=torch.bool)
    written.flatten().as_strided((67, n), (pitch, 1), pitch + offset).fill_(True)
    assert buffer.flatten()[~written.flatten()].isnan().all(), (n, offset, extra)


# ---- every instance: dtype, bits, dequantization, asymmetric, rows of a tile

# The largest scale decides the dequantization (layout.choose_dequant).
KINDS = [
    (4, Dequant.TWO_FIELD, 0.003), (4, Dequant.ONE_FIELD, 0.2), (4, Dequant.WIDE, 3.0),
    (8, Dequant.ONE_FIELD, 0.003), (8, Dequant.WIDE, 3.0),
]  # fmt: skip
each_instance = pytest.mark.parametrize(
    ("dtype", "bits", "kind", "scale", "symmetric", "rows"),
    [
        pytest.param(*instance, id="-".join(map(str, instance)))
        for instance in (
            (dtype, *kind, symmetric, rows)
            for dtype in DTYPES for kind in KINDS for symmetric in (True, False) for rows in ROWS
            if not (symmetric and kind[1] == Dequant.WIDE)  # stored as asymmetric: the same one
        )
    ],
)  # fmt: skip


def of_kind(k, n, dtype, bits, kind, scale, symmetric):
    made = random_weight(
        k, n, bits=bits, dtype=dtype, scale=scale, symmetric=symmetric, group_size=32, k_start=11
    )
    assert made.packed.dequant == kind
    assert (made.packed.zeros is None) == symmetric
    return made


@each_instance
def test_every_instance(dtype, bits, kind, scale, symmetric, rows):
    """Whole tiles and tiles in parts; a straddled group, odd n, tails of M, N and K."""
    emulator()
    made = of_kind(171, 263, dtype, bits, kind, scale, symmetric)
    identity = torch.eye(171, dtype=dtype)
    bias = bias_of(263, dtype)
    for blocks in (None, 3):
        run = EmulatedRun(wgmma_rows=rows, blocks=blocks, delivery="random", seed=rows)
        assert_equal(run.gemm(identity, made.packed), made.dense, run)
        a = activations(rows + 7, 171, dtype)
        got = run.gemm(a, made.packed, bias)
        assert_as_good_as_torch(got, a, made.dense, bias, run)


def test_all_instances_are_tested():
    """As csrc/cuda/wgmma/instances.cuh has them: 8 dequantizers, 8 numbers of rows, 2 dtypes."""
    assert emulator().wgmma_block_rows == ROWS
    assert len(each_instance.args[1]) == 8 * 8 * 2


def test_a_number_of_rows_that_no_block_has_is_refused():
    emulator()
    made = random_weight(70, 64)
    with pytest.raises(ValueError, match="tile_m is 72"):
        EmulatedRun(wgmma_rows=72).gemm(activations(70, 70, torch.float16), made.packed)


@pytest.mark.gpu
@each_instance
def test_every_instance_on_a_device(dtype, bits, kind, scale, symmetric, rows):
    reason = wgmma_skip_reason()
    if reason is not None:
        pytest.skip(reason)
    m, n = m_for_tiles_of(rows), WGMMA_COLUMNS
    text = _extension.explain_gemm(
        "h200", m=m, k=171, n=n, padded_k=192, padded_n=round_up(n, TILE), bits=bits,
        weight_bytes=192 * n * bits // 8, asymmetric=not symmetric, gathers=False, copy_bytes=2,
        batch_invariant=False,
    )  # fmt: skip
    assert f" {rows} x 256 (M x N)" in text, text
    made = of_kind(171, n, dtype, bits, kind, scale, symmetric)
    bias = bias_of(n, dtype)
    assert_equal(CudaRun().gemm(torch.eye(171, dtype=dtype), made.packed), made.dense, (m, n))
    a = activations(m, 171, dtype)
    got = CudaRun().gemm(a, made.packed, bias)
    assert_as_good_as_torch(got, a, made.dense, bias, (m, n))


# ---- at random


@given(
    m=st.integers(1, 330),
    k=st.integers(1, 300),
    n=st.integers(1, 300),
    bits=st.sampled_from([4, 8]),
    group_size=st.sampled_from([-1, 8, 16, 32, 48, 64, 100, 128]),
    symmetric=st.booleans(),
    act_order=st.booleans(),
    k_start=st.integers(0, 400),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from([0.002, 0.1, 3.0]),
    run=st.builds(
        EmulatedRun,
        delivery=st.sampled_from(["eager", "late", "random"]),
        seed=st.integers(0, 99),
        resident_blocks=st.integers(1, 3),
        wgmma_rows=st.sampled_from(ROWS),
        blocks=st.sampled_from([None, 1, 2, 3, 7]),
        splits=st.sampled_from([None, None, 2, 3]),
    ),
)
def test_random_problems_under_random_schedules(
    m, k, n, bits, group_size, symmetric, act_order, k_start, dtype, scale, run
):
    emulator()
    made = random_weight(
        k, n, bits=bits, group_size=group_size, symmetric=symmetric, dtype=dtype, scale=scale,
        act_order=act_order, k_start=k_start,
    )  # fmt: skip
    a = activations(m, k, dtype)
    got = run.gemm(a, made.packed)
    assert_as_good_as_torch(got, a, made.dense, None, run)
