# SPDX-License-Identifier: Apache-2.0
"""The gemm and repack kernels, on the emulator and on a device: three tiers of numerics (docs/
numerics.md) over ragged shapes, every way of reading A and writing the output."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import padmarlin
from padmarlin.layout import Dequant, round_up, unpack_tiles
from padmarlin.packing import Packing, packs
from tests.kernels import NAN, EmulatedRun, emulator
from tests.weights import pack_words, random_weight, random_words

DTYPES = [torch.float16, torch.bfloat16]


def activations(m, k, dtype, seed=1, integers=False, offset=0, pitch=None):
    """(m, k) activations inside a buffer that is NaN everywhere else."""
    pitch = k + offset if pitch is None else pitch
    buffer = torch.full((m + 2, pitch), NAN, dtype=dtype)
    view = buffer.flatten().as_strided((m, k), (pitch, 1), pitch + offset)
    generator = torch.Generator().manual_seed(seed)
    if integers:
        view.copy_(torch.randint(-2, 3, (m, k), generator=generator))
    else:
        view.copy_(torch.randn((m, k), generator=generator))
    return view


def assert_equal(got, want, what):
    """Bit for bit, but for the sign of zeros; a failure names the first element."""
    same = got == want
    if not same.all():
        index = (~same).nonzero()[0].tolist()
        difference = f"{got[tuple(index)]} instead of {want[tuple(index)]}"
        pytest.fail(f"{what}: {int((~same).sum())} of {same.numel()} differ; {index}: {difference}")


def assert_as_good_as_torch(got, a, dense, bias, what):
    """The error against float64 is at most twice that of torch's product in the same dtype."""
    exact = a.double() @ dense.double()
    own = (a.float() @ dense.float()).to(a.dtype)
    if bias is not None:
        exact = exact + bias.double()
        own = (a.float() @ dense.float() + bias.float()).to(a.dtype)
    assert not got.isnan().any(), f"{what}: NaN at {got.isnan().nonzero()[0].tolist()}"
    limit = 2 * (own.double() - exact).norm() + 1e-6 * exact.norm()
    error = (got.double() - exact).norm()
    assert error <= limit, f"{what}: error {error:.3e}, limit {limit:.3e}"


# ---- tier 1: identity activations give the dequantized weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("scale", [2.0**-24, 2.0**-15, 2.0**-8, 0.0625, 0.07, 0.3, 2.5, 200.0])
def test_identity_activations_give_the_weight_bit_for_bit(runner, dtype, bits, symmetric, scale):
    made = random_weight(
        72, 70, bits=bits, symmetric=symmetric, dtype=dtype, scale=scale, group_size=32
    )
    got = runner.gemm(torch.eye(72, dtype=dtype), made.packed)
    assert_equal(got, made.dense, (dtype, bits, symmetric, scale, made.packed.dequant))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [4, 8])
def test_every_code_and_zero_point(runner, dtype, bits):
    """All pairs (q, z) with a scale for each dequantization."""
    values = 1 << bits
    k, n = values, values
    for scale in (2.0**-9, 0.11, 1.7):
        made = random_weight(
            k, n, bits=bits, symmetric=False, dtype=dtype, scale=scale, group_size=-1
        )
        got = runner.gemm(torch.eye(k, dtype=dtype), made.packed)
        assert_equal(got, made.dense, (dtype, bits, scale, made.packed.dequant))


# ---- tier 2: small integers are exact


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 7, 16, 17, 33, 65, 130])
def test_small_integers_are_exact(runner, dtype, m):
    made = random_weight(200, 300, scale=1.0, integers=True, dtype=dtype, group_size=64)
    a = activations(m, 200, dtype, integers=True)
    want = (a.double() @ made.dense.double()).to(dtype)
    assert_equal(runner.gemm(a, made.packed), want, (dtype, m))


# ---- tier 3: random data, ragged shapes

SHAPES = [
    # m, k, n, group, k_start
    (1, 64, 64, 64, 0),
    (1, 1, 1, -1, 0),
    (1, 171, 70, 32, 0),
    (3, 63, 65, 32, 0),
    (5, 130, 7, 128, 64),
    (16, 115, 129, 16, 3),  # an odd front pad
    (17, 258, 256, 128, 258),
    (2, 100, 1000, 100, 0),
    (33, 96, 320, 24, 0),
    (9, 200, 257, 64, 8),
    (64, 320, 64, 128, 48),
    (70, 1032 // 4, 60, 128, 1032 // 4),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits, symmetric", [(4, True), (4, False), (8, True), (8, False)])
@pytest.mark.parametrize("m, k, n, group_size, k_start", SHAPES)
def test_ragged_shapes(runner, dtype, bits, symmetric, m, k, n, group_size, k_start):
    made = random_weight(
        k, n, bits=bits, group_size=group_size, symmetric=symmetric, dtype=dtype, k_start=k_start,
        scale=0.003, seed=m,
    )  # fmt: skip
    a = activations(m, k, dtype)
    bias = torch.randn(n, generator=torch.Generator().manual_seed(2)).to(dtype)
    got = runner.gemm(a, made.packed, bias)
    assert_as_good_as_torch(got, a, made.dense, bias, (m, k, n, group_size, k_start))


@pytest.mark.parametrize("group_size", [-1, 16, 24, 32, 64, 100, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_act_order(runner, group_size, bits):
    made = random_weight(
        300, 130, bits=bits, group_size=group_size, act_order=True, symmetric=False, scale=0.003
    )
    a = activations(5, 300, torch.float16)
    got = runner.gemm(a, made.packed)
    assert_as_good_as_torch(got, a, made.dense, None, group_size)
    identity = runner.gemm(torch.eye(300, dtype=torch.float16), made.packed)
    assert_equal(identity, made.dense, group_size)


# Every width of copy: (elements before the first, row pitch - k) with k = 96 and a front pad.
READS = [(0, 0), (8, 8), (4, 4), (2, 2), (1, 3), (0, 7), (3, 32), (0, 2)]


@pytest.mark.parametrize("k_start", [0, 8, 4, 2, 1])
@pytest.mark.parametrize("offset, extra", READS)
def test_activations_are_read_in_place_whatever_their_alignment(runner, offset, extra, k_start):
    made = random_weight(96, 80, group_size=32, k_start=k_start)
    a = activations(6, 96, torch.float16, offset=offset, pitch=96 + offset + extra)
    want = padmarlin.gemm(a.contiguous(), made.packed)
    got = runner.gemm(a, made.packed)
    assert_as_good_as_torch(got, a, made.dense, None, (offset, extra, k_start))
    assert (got - want).abs().max() <= 2e-3 * want.abs().max()


@pytest.mark.parametrize("n", [1, 2, 63, 65, 130])
@pytest.mark.parametrize("offset, extra", [(0, 0), (1, 0), (2, 6), (3, 1)])
def test_the_output_is_written_in_place_and_nothing_else(runner, n, offset, extra):
    made = random_weight(64, n)
    a = activations(19, 64, torch.float16)
    pitch = n + offset + extra
    buffer = torch.full((21, pitch), NAN, dtype=torch.float16)
    out = buffer.flatten().as_strided((19, n), (pitch, 1), pitch + offset)
    runner.gemm(a, made.packed, out=out)
    assert_as_good_as_torch(out, a, made.dense, None, (n, offset, extra))
    written = torch.zeros((21, pitch), dtype=torch.bool)
    written.flatten().as_strided((19, n), (pitch, 1), pitch + offset).fill_(True)
    assert buffer[~written].isnan().all(), (n, offset, extra)


# m_steps, column_warps, k_groups; None: the dispatcher's.
SHAPES_OF_BLOCKS = [
    None,
    (1, 2, 4),
    (1, 1, 8),
    (2, 4, 2),
    (2, 1, 1),
    (4, 2, 3),
    (8, 4, 1),
    (8, 1, 2),
]


@given(
    m=st.integers(1, 40),
    k=st.integers(1, 300),
    n=st.integers(1, 150),
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
        shape=st.sampled_from(SHAPES_OF_BLOCKS),
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


# ---- the partition of K


SCHEDULES = [("late", 0, 1), ("eager", 5, 4), ("random", 9, 2)]
PARTITIONS = [
    {"splits": 2}, {"splits": 3}, {"splits": 5, "blocks": 2},
    {"blocks": 1}, {"blocks": 2}, {"blocks": 3}, {"blocks": 7},
]  # fmt: skip


@pytest.mark.parametrize("partition", PARTITIONS, ids=str)
@pytest.mark.parametrize("shape", [(1, 2, 4), (2, 1, 3), (4, 4, 1)], ids=str)
def test_partial_tiles_add_up_to_the_same_bits_under_every_schedule(partition, shape):
    emulator()
    m, k, n = 18, 64 * 7, 200
    made = random_weight(k, n, group_size=64)
    a = activations(m, k, torch.float16)
    bias = torch.ones(n, dtype=torch.float16)
    results = [
        EmulatedRun(
            delivery=delivery, seed=seed, resident_blocks=blocks, shape=shape, **partition
        ).gemm(a, made.packed, bias)
        for delivery, seed, blocks in SCHEDULES
    ]
    assert_as_good_as_torch(results[0], a, made.dense, bias, (partition, shape))
    for result in results[1:]:
        assert torch.equal(result, results[0]), "the bits depend on the schedule"


def test_batch_invariance(runner):
    made = random_weight(64 * 9, 130, group_size=64)
    a = activations(129, 64 * 9, torch.float16)
    first = runner.gemm(a[:1], made.packed, batch_invariant=True)
    for m in (7, 8, 9, 16, 17, 33, 64, 65, 128):
        neighbours = activations(m, 64 * 9, torch.float16, seed=m)
        neighbours[0] = a[0]
        got = runner.gemm(neighbours, made.packed, batch_invariant=True)
        assert torch.equal(got[0], first[0]), f"m = {m}"


def test_bits_depend_on_the_groups_of_warps_alone():
    """Neither on the rows of a tile nor on its columns: what batch_invariant is built on."""
    emulator()
    made = random_weight(64 * 9, 300, group_size=64)
    a = activations(20, 64 * 9, torch.float16)
    for k_groups in (1, 2):
        shapes = [(1, 1, k_groups), (2, 4, k_groups), (4, 2, k_groups), (8, 3, k_groups)]
        results = [EmulatedRun(shape=shape).gemm(a, made.packed) for shape in shapes]
        for result, shape in zip(results, shapes, strict=True):
            assert torch.equal(result, results[0]), shape


# ---- shared memory


@pytest.mark.parametrize("m", [1, 8, 16, 32, 64])
@pytest.mark.parametrize("bits, symmetric", [(4, True), (8, False)])
def test_the_main_loop_has_no_bank_conflicts(m, bits, symmetric):
    emulator()
    made = random_weight(256, 256, bits=bits, symmetric=symmetric, scale=0.003)
    a = activations(m, 256, torch.float16)
    out = torch.empty((m, 256), dtype=torch.float16)
    statistics = EmulatedRun().gemm_statistics(a, made.packed, out=out)
    assert statistics["ldmatrix_x4"].instructions > 0, statistics
    assert statistics["ld_shared_v4"].instructions > 0, statistics
    for instruction, accesses in statistics.items():
        assert accesses.extra_wavefronts == 0, (instruction, statistics)


# ---- repack


PACKINGS = [
    (packing, bits, base)
    for packing in Packing
    for bits, base in [(4, 3), (4, 0), (8, 0)]
    if packs(packing, bits)
]


@pytest.mark.parametrize(("packing", "bits", "base"), PACKINGS)
@pytest.mark.parametrize(
    ("k", "n", "first_column"), [(117, 90, 0), (117, 90, 5), (1, 1, 3), (64, 64, 8)]
)
@pytest.mark.parametrize("padded", [False, True])
def test_repack_is_bit_identical_to_the_reference(
    runner, packing, bits, base, k, n, first_column, padded
):
    """Rows in any order, rows beyond the words, and words that are a view inside others."""
    generator = torch.Generator().manual_seed(7)
    padded_k, rows = 192, 3
    around = random_words(k + 24, first_column + n + 24, packing, bits, seed=7)
    _, word_columns = random_words(k, first_column + n + 4, packing, bits, seed=7).shape
    words = around[:, 2 : word_columns + 2]
    source_rows = torch.randperm(padded_k, generator=generator).to(torch.int32)
    source_rows[source_rows >= k] = -1
    source_rows[5:8] = torch.tensor([10**6, 2**31 - 1, -(2**31)])
    slice_rows = torch.randint(0, rows, (padded_k // 16,), generator=generator, dtype=torch.int32)
    pads = torch.randint(0, 1 << bits, (rows, round_up(n, 64)), generator=generator)
    pads = pads.to(torch.uint8) if padded else None
    arguments = (words, source_rows, slice_rows, pads, packing, first_column, n, bits, base)
    want = torch.ops.padmarlin.repack(*arguments)
    got = runner.repack(*arguments)
    assert torch.equal(got, want), (got != want).nonzero()[:4].tolist()


@pytest.mark.parametrize(("packing", "bits", "base"), PACKINGS)
def test_repack_puts_every_code_where_the_layout_says(runner, packing, bits, base):
    """Without the reference: one code after the other set in words of zeros."""
    k, n = 16, 24
    rows = torch.full((64,), -1, dtype=torch.int32)
    rows[:k] = torch.arange(k)
    pads = torch.zeros((1, 64), dtype=torch.uint8)
    for row, column in [(0, 0), (1, 0), (0, 1), (7, 5), (8, 6), (15, 23), (9, 10), (2, 19)]:
        codes = torch.zeros((k, n), dtype=torch.int64)
        codes[row, column] = (1 << bits) - 1
        words = pack_words(codes, packing, bits)
        got = runner.repack(
            words, rows, torch.zeros(4, dtype=torch.int32), pads, packing, 0, n, bits, base
        )
        unpacked = unpack_tiles(got, bits, base)
        assert unpacked.nonzero().tolist() == [[row, column]], (row, column)


# ---- what tampering cannot do


def test_tables_that_point_outside_are_never_followed():
    """Nothing can build such a PaddedWeight; a raw call can, and must stay in bounds."""
    emulator()
    made = random_weight(128, 70, group_size=16, act_order=True)
    weight = made.packed
    for name, value in (
        ("slice_rows", 2**30),
        ("slice_rows", -5),
        ("columns", 2**30),
        ("columns", -9),
    ):
        table = getattr(weight, name).clone()
        table[3] = value
        tampered = object.__new__(padmarlin.PaddedWeight)
        tampered.__dict__.update({**weight.__dict__, name: table})
        EmulatedRun().gemm(activations(3, 128, torch.float16), tampered)


def test_dequantizations_are_all_exercised():
    kinds = {
        random_weight(
            64, 64, bits=bits, dtype=dtype, scale=scale, symmetric=symmetric
        ).packed.dequant
        for bits in (4, 8)
        for dtype in DTYPES
        for scale in (2.0**-8, 0.0625, 0.07, 2.5)
        for symmetric in (True, False)
    }
    assert kinds == set(Dequant)
