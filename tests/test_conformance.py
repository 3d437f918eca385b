# SPDX-License-Identifier: Apache-2.0
"""Each primitive of csrc/cuda/ptx: the host twin and, where there is a GPU, the device, held
against what the PTX ISA says and against each other. Seeds are stated where they are used.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from padmarlin import layout
from padmarlin.layout import Dequant
from tests.conformance import patterns
from tests.conformance.build import CannotBuild, device_library, host_library
from tests.conformance.patterns import nearest, pairs, telling, value
from tests.conformance.sides import CONSUMERS, Device, Host, Side

HALF = pytest.mark.parametrize("half", [True, False], ids=["half", "bfloat16"])
DTYPES = {True: torch.float16, False: torch.bfloat16}


@functools.cache
def host_side() -> Host:
    try:
        return Host(host_library())
    except CannotBuild as reason:
        pytest.skip(str(reason))


@functools.cache
def device_side() -> Device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("the device is older than compute capability 8.0")
    try:
        return Device(device_library())
    except CannotBuild as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["host", pytest.param("device", marks=pytest.mark.gpu)])
def side(request: pytest.FixtureRequest) -> Side:
    return host_side() if request.param == "host" else device_side()


@pytest.fixture
def both() -> tuple[Host, Device]:
    return host_side(), device_side()


def assert_same_bits(got: np.ndarray, expected: np.ndarray, what: str, *operands: object) -> None:
    different = np.argwhere(got != expected)
    if different.size:
        at = tuple(different[0])
        values = [hex(int(np.broadcast_to(x, got.shape)[at])) for x in operands]
        pytest.fail(
            f"{what}: {len(different)} of {got.size} differ; at {at} of operands {values}: "
            f"{int(got[at]):#x}, expected {int(expected[at]):#x}"
        )


def test_the_probes_compile_for_devices() -> None:
    """With or without a GPU, so that they cannot rot."""
    try:
        device_library()
    except CannotBuild as reason:
        pytest.skip(str(reason))


# ---- mma.m16n8k16: "Matrix Fragments for mma.m16n8k16 with floating point type", register i of
# lane 4g + t, as the PTX ISA words it: element index first, register = index / 2

LANE = np.arange(32)[:, None]
GROUP, THREAD = LANE // 4, LANE % 4


def a_fragments(a: np.ndarray) -> np.ndarray:
    """Patterns (16, 16) to registers (32, 4)."""
    i = np.arange(8)
    row = np.where((i < 2) | ((i >= 4) & (i < 6)), GROUP, GROUP + 8)
    column = np.where(i < 4, THREAD * 2 + (i & 1), THREAD * 2 + (i & 1) + 8)
    elements = a[row, column]
    return pairs(elements[:, 0::2], elements[:, 1::2])


def b_fragments(b: np.ndarray) -> np.ndarray:
    """Patterns (16, 8) to registers (32, 2)."""
    i = np.arange(4)
    row = np.where(i < 2, THREAD * 2 + (i & 1), THREAD * 2 + (i & 1) + 8)
    elements = b[row, GROUP]
    return pairs(elements[:, 0::2], elements[:, 1::2])


def d_matrix(d: np.ndarray) -> np.ndarray:
    """Registers (32, 4) to (16, 8)."""
    i = np.arange(4)
    matrix = np.full((16, 8), np.nan, np.float32)
    matrix[np.where(i < 2, GROUP, GROUP + 8), THREAD * 2 + (i & 1)] = d
    return matrix


def mma(side: Side, half: bool, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return d_matrix(side.mma(half, a_fragments(a), b_fragments(b)))


@HALF
def test_mma_of_small_integers_is_exact(side: Side, half: bool) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(-8, 9, (16, 16)), rng.integers(-8, 9, (16, 8))
    got = mma(side, half, nearest(a, half), nearest(b, half))
    np.testing.assert_array_equal(got, a @ b)


@HALF
def test_mma_takes_every_element_once(side: Side, half: bool) -> None:
    """A single 1 in a, at each place in turn, picks out a row of b."""
    b = np.arange(1, 129).reshape(16, 8)
    for row, k in np.ndindex(16, 16):
        a = np.zeros((16, 16))
        a[row, k] = 1
        expected = np.zeros((16, 8))
        expected[row] = b[k]
        got = mma(side, half, nearest(a, half), nearest(b, half))
        np.testing.assert_array_equal(got, expected, f"1 at row {row}, k {k}")


@HALF
def test_mma_of_random_data(side: Side, half: bool) -> None:
    """Tensor cores align the products to the largest and drop bits below fp32's, in an order of
    their own: an error of some 2^-23 of the largest for each of the 16, say 2^-19 in all."""
    rng = np.random.default_rng(2)
    for _ in range(64):
        scale = np.exp2(rng.uniform(-6, 6, (2, 1, 1)))
        a = nearest(rng.standard_normal((16, 16)) * scale[0], half)
        b = nearest(rng.standard_normal((16, 8)) * scale[1], half)
        exact = value(a, half) @ value(b, half)
        limit = 2.0**-19 * (abs(value(a, half)) @ abs(value(b, half)))
        assert (abs(mma(side, half, a, b) - exact) <= limit).all()


@HALF
def test_mma_keeps_subnormals(side: Side, half: bool) -> None:
    """Weights of tiny scales are subnormal, and their products with 1 in fp32 too (bf16)."""
    tiny = np.arange(1, 129).reshape(16, 8)  # bf16: 127 subnormals and the first normal
    got = mma(side, half, nearest(np.eye(16), half), tiny)
    np.testing.assert_array_equal(got, value(tiny, half))


@HALF
def test_mma_spreads_nan_along_its_row_only(side: Side, half: bool) -> None:
    """And a zero weight does not excuse a NaN activation, which is why A's tail is zero-filled."""
    a, b = np.ones((16, 16)), np.zeros((16, 8))
    a[5, 3], a[6, 4] = np.nan, np.inf
    got = mma(side, half, nearest(a, half), nearest(b, half))
    assert np.isnan(got[5:7]).all()
    assert (np.delete(got, [5, 6], axis=0) == 0).all()


# ---- ldmatrix, and the packed format in the fragments of its three consumers


@pytest.mark.parametrize("row_pitch", [16, 80, 128])
def test_ldmatrix(side: Side, row_pitch: int) -> None:
    matrices = np.arange(256).reshape(4, 8, 8)
    fragments = side.ldmatrix(matrices, row_pitch).view(np.uint16).reshape(32, 4, 2)
    expected = matrices[:, GROUP, THREAD * 2 + np.arange(2)].transpose(1, 0, 2)
    np.testing.assert_array_equal(fragments, expected)


def test_two_warps_exchange_floats_at_a_barrier_of_their_own(side: Side) -> None:
    values = np.arange(256, dtype=np.float32).reshape(64, 4) + 0.5
    partner = values[np.arange(64) ^ 32]
    got = side.exchange(values)
    np.testing.assert_array_equal(got[:, :4], partner)
    np.testing.assert_array_equal(got[:, 4:], partner[:, 1:3])


@HALF
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_packed_tiles_feed(side: Side, consumer: str, half: bool, bits: int) -> None:
    wgmma = consumer == "register_a"
    if wgmma and isinstance(side, Device) and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("wgmma exists on compute capability 9.0 only")
    rng = np.random.default_rng([3, bits])
    codes = rng.integers(0, 1 << bits, (64, 128 if wgmma else 64))
    order = layout.code_order(DTYPES[half], bits)
    tiles = layout.pack_tiles(torch.from_numpy(codes), bits, layout.field_base(order)).numpy()
    rows = rng.integers(-4, 5, (16 if consumer == "operand_b" else 8, 64))
    got = side.consume(consumer, half, bits, tiles, nearest(rows, half))
    product = rows @ (codes - layout.symmetric_zero(bits))
    np.testing.assert_array_equal(got, product if consumer == "operand_b" else product.T)


def test_stmatrix_stores_columns_as_rows(side: Side) -> None:
    if isinstance(side, Device) and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("stmatrix exists from compute capability 9.0 on")
    matrices = np.arange(256).reshape(4, 8, 8)
    elements = matrices[:, GROUP, THREAD * 2 + np.arange(2)]  # (matrix, lane, 2)
    fragments = pairs(elements[..., 0], elements[..., 1]).T
    expected = matrices.transpose(0, 2, 1).reshape(32, 8)
    np.testing.assert_array_equal(side.stmatrix(fragments), expected)


@HALF
@pytest.mark.parametrize("columns", [48, 64, 80, 96, 112, 128, 144, 160])
def test_wgmma_of_small_integers_is_exact(side: Side, half: bool, columns: int) -> None:
    """Two groups at a time, the first overwrites; seed 14."""
    if isinstance(side, Device) and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("wgmma exists on compute capability 9.0 only")
    rng = np.random.default_rng(14)
    a, b = rng.integers(-8, 9, (64, 64)), rng.integers(-8, 9, (64, columns))
    patterns_of_a = nearest(a, half)
    registers = np.stack([
        np.concatenate([
            a_fragments(patterns_of_a[16 * warp : 16 * warp + 16, 16 * k : 16 * k + 16])
            for warp in range(4)
        ])
        for k in range(4)
    ])  # fmt: skip
    got = side.wgmma(half, registers, nearest(b.T, half)).reshape(4, 32, columns // 8, 2, 2)
    d = np.full((64, columns), np.nan)
    for warp, block, row_half, i in np.ndindex(4, columns // 8, 2, 2):
        rows = 16 * warp + GROUP.reshape(-1) + 8 * row_half
        d[rows, 8 * block + 2 * THREAD.reshape(-1) + i] = got[warp, :, block, row_half, i]
    np.testing.assert_array_equal(d, a @ b)


# ---- copies


@pytest.mark.parametrize("width", [4, 8, 16])
def test_partial_copies_fill_with_zeros(side: Side, width: int) -> None:
    values = np.random.default_rng(4).integers(1, 255, 32 * width, np.uint8)
    for present in range(width + 1):
        got = side.partial_copy(width, values, present).reshape(32, width)
        expected = values.reshape(32, width).copy()
        expected[:, present:] = 0
        np.testing.assert_array_equal(got, expected, f"{present} of {width} bytes present")


@pytest.mark.parametrize("threads", [32, 1024])
def test_copies_under_a_policy_deliver(side: Side, threads: int) -> None:
    values = np.random.default_rng(5).integers(0, 255, 16 * threads, np.uint8)
    np.testing.assert_array_equal(side.policy_copy(values), values)


@pytest.mark.parametrize("blocks", [1, 50])
def test_copies_arrive_at_the_wait_and_the_barrier(side: Side, blocks: int) -> None:
    values = np.random.default_rng(6).integers(0, 255, 1024 * blocks, np.uint8)
    expected = values.reshape(blocks, 64, 16)[:, ::-1].reshape(-1)
    np.testing.assert_array_equal(side.reverse(values), expected)


@pytest.mark.parametrize("chunks", [1, 2, 33])
def test_bulk_copies_arrive_at_the_mbarrier(side: Side, chunks: int) -> None:
    if isinstance(side, Device) and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("bulk copies exist from compute capability 9.0 on")
    values = np.random.default_rng(13).integers(0, 255, 512 * chunks, np.uint8)
    expected = values.reshape(chunks, 32, 16)[:, ::-1].reshape(-1)
    np.testing.assert_array_equal(side.bulk_pipeline(values), expected)


@pytest.mark.parametrize("x", [-64, -48, -8, -1, 0, 3, 40, 90, 101])
@pytest.mark.parametrize("y", [-17, -2, 0, 9, 20])
def test_tma_fills_with_zeros_what_lies_outside(side: Side, x: int, y: int) -> None:
    """Negative corners are a front pad, corners near the end the tails of K and M. The box lies
    swizzled: 16-byte chunk c of row r at chunk c ^ r % 8. Seed 11; columns past the tensor's 100,
    up to the pitch, hold NaN patterns that must not arrive."""
    if isinstance(side, Device) and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("TMA exists from compute capability 9.0 on")
    rows, columns = 21, 100
    matrix = np.full((rows, 104), 0xFFFF, np.uint16)
    matrix[:, :columns] = np.random.default_rng(11).integers(1, 0x7000, (rows, columns))
    outside = np.zeros((rows + 64, columns + 256), np.uint16)
    outside[32 : 32 + rows, 128 : 128 + columns] = matrix[:, :columns]
    expected = outside[32 + y : 48 + y, 128 + x : 192 + x].reshape(16, 8, 8)
    got = side.tma_tile(matrix, columns, x, y).reshape(16, 8, 8)
    for row in range(16):
        unswizzled = got[row, np.arange(8) ^ row % 8]
        assert np.array_equal(unswizzled, expected[row]), (x, y, row)


# ---- arithmetic, bit for bit, signs of zero and NaN included


def special(half: bool) -> np.ndarray:
    infinity = (patterns.EXPONENTS[half] - 1) << patterns.MANTISSA_BITS[half]
    return np.array([0, 0x8000, infinity, 0x8000 | infinity, patterns.NAN], np.uint32)


def operands(half: bool, seed: int, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Patterns: all pairs of special ones, random ones, telling ones with neighbours."""
    rng = np.random.default_rng(seed)
    a, b = np.meshgrid(special(half), np.concatenate([special(half), telling(half)]))
    random = patterns.random_finite(rng, half, 1 << 16)
    partners = np.resize(telling(half), 1 << 16)
    left = np.concatenate([a.reshape(-1), b.reshape(-1), random, partners, partners])
    near = patterns.near(rng, half, partners, distance)
    right = np.concatenate([b.reshape(-1), a.reshape(-1), rng.permutation(random), random, near])
    return left, right


def apply2(side: Side, name: str, half: bool, *low: np.ndarray) -> np.ndarray:
    """The low halves in order, the high halves in reverse; both results, high ones turned back."""
    got = side.map(name, half, *(pairs(x, x[::-1]) for x in low))
    return np.stack([got & 0xFFFF, (got >> 16)[::-1]])


@HALF
def test_mul2(side: Side, half: bool) -> None:
    a, b = operands(half, 7, 15)
    with np.errstate(invalid="ignore"):
        expected = nearest(value(a, half) * value(b, half), half)
    assert_same_bits(apply2(side, "mul2", half, a, b), np.stack([expected] * 2), "mul2", a, b)


@HALF
def test_sub2(side: Side, half: bool) -> None:
    a, b = operands(half, 8, 15)
    with np.errstate(invalid="ignore"):
        expected = nearest(value(a, half) - value(b, half), half)
    assert_same_bits(apply2(side, "sub2", half, a, b), np.stack([expected] * 2), "sub2", a, b)


@pytest.mark.gpu
@HALF
def test_fma2_on_both_sides(both: tuple[Host, Device], half: bool) -> None:
    """tests/test_emulator.py holds the host's half against exact arithmetic."""
    a, b = operands(half, 9, 15)
    with np.errstate(invalid="ignore"):
        product = nearest(value(a, half) * value(b, half), half)
    rng = np.random.default_rng(10)
    for c in (patterns.near(rng, half, product, 12), rng.permutation(a), product ^ 0x8000):
        host, device = (apply2(side, "fma2", half, a, b, c) for side in both)
        assert_same_bits(device, host, "fma2", a, b, c)


@HALF
def test_broadcasts(side: Side, half: bool) -> None:
    registers = np.random.default_rng(11).integers(0, 1 << 32, 4096, np.uint32)
    low, high = registers & 0xFFFF, registers >> 16
    assert_same_bits(side.map("broadcast_low", half, registers), pairs(low, low), "low", registers)
    got = side.map("broadcast_high", half, registers)
    assert_same_bits(got, pairs(high, high), "high", registers)


@HALF
def test_to_float_is_exact(side: Side, half: bool) -> None:
    every = np.arange(1 << 16, dtype=np.uint32)
    got = side.to_float(half, every)
    with np.errstate(invalid="ignore"):
        expected = value(every, half).astype(np.float32)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    number = ~np.isnan(expected)
    assert_same_bits(
        got[number].view(np.uint32), expected[number].view(np.uint32), "to_float", every[number]
    )


@HALF
def test_pack2_rounds_to_even(side: Side, half: bool) -> None:
    """Every number, every midpoint of neighbours, the floats beside each, and random ones."""
    number = value(patterns.finite(half), half)
    ascending = np.unique(number)
    middle = (ascending[1:] + ascending[:-1]) / 2
    points = np.concatenate([number, middle]).astype(np.float32)
    random = np.random.default_rng(12).integers(0, 1 << 32, 1 << 16, np.uint32).view(np.float32)
    beside = [np.nextafter(points, np.float32(end)) for end in (-np.inf, np.inf)]
    ends = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 3.4e38, -3.4e38, 1e-45], np.float32)
    floats = np.concatenate([points, *beside, random, ends])
    expected = nearest(floats, half)
    got = side.pack2(half, floats, floats[::-1])
    where = floats.view(np.uint32)
    assert_same_bits(got & 0xFFFF, expected, "pack2, low", where)
    assert_same_bits((got >> 16)[::-1], expected, "pack2, high", where)


def test_prmt(side: Side) -> None:
    """Every selector of bytes 0 to 7; the sign-replicating ones are no part of the primitive."""
    digits = np.indices((8, 8, 8, 8)).reshape(4, -1)
    selector = sum(digit << 4 * i for i, digit in enumerate(digits))
    a, b = np.random.default_rng(13).integers(0, 1 << 32, (2, selector.size), np.uint32)
    source = np.stack([a, b], axis=1).view(np.uint8)  # bytes 0..3 of a, then of b
    chosen = np.take_along_axis(source, digits.T, axis=1)
    expected = np.ascontiguousarray(chosen).view(np.uint32).reshape(-1)
    assert_same_bits(side.prmt(a, b, selector), expected, "prmt", a, b, selector)


# ---- dequantization: what csrc/cuda/dequant.cuh makes of subnormal codes

KINDS = [
    (4, Dequant.TWO_FIELD, False), (4, Dequant.TWO_FIELD, True),
    (4, Dequant.ONE_FIELD, False), (4, Dequant.ONE_FIELD, True), (4, Dequant.WIDE, True),
    (8, Dequant.ONE_FIELD, False), (8, Dequant.ONE_FIELD, True), (8, Dequant.WIDE, True),
]  # fmt: skip


def words_of_every_code(half: bool, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Words (2^bits, planes) and their codes (2^bits, k half, column half, row of the pair) such
    that every code stands at every place. Packed by the package, as part of a tile."""
    count = 1 << bits
    word, position = np.indices((count, 8))
    codes = ((word + 37 * position) % count).reshape(count, 2, 2, 2)
    tile = np.zeros((64, 64), np.int64)
    # Tile words are ordered [slice][plane][lane = 4g + t][j].
    slice_, g, t, j = (x[:count] for x in np.indices((4, 8, 4, 4)).reshape(4, -1))
    for k_half, column_half, row in np.ndindex(2, 2, 2):
        k, n = 16 * slice_ + 8 * k_half + 2 * t + row, 16 * j + 8 * column_half + g
        tile[k, n] = codes[:, k_half, column_half, row]
    base = layout.field_base(layout.code_order(DTYPES[half], bits))
    packed = layout.pack_tiles(torch.from_numpy(tile), bits, base).numpy().view(np.uint32)
    by_word = packed.reshape(4, bits // 4, 128).transpose(0, 2, 1).reshape(512, bits // 4)
    return by_word[:count], codes


def stored_column_pairs(values: torch.Tensor, store) -> np.ndarray:
    """What the packed format stores for (count, 2) values of the columns n and n + 8, as registers.
    `store` is layout.pack_scales or pack_zeros over rows of 64 columns."""
    row = values.repeat_interleave(8, dim=1).repeat(
        1, 4
    )  # columns 0..7 the first, 8..15 the second
    stored = store(row).view(torch.int16).numpy().view(np.uint16)
    return pairs(stored[:, 0], stored[:, 1])  # lane 0 finds n = 0 and n = 8 there


@HALF
@pytest.mark.parametrize(("bits", "dequant", "asymmetric"), KINDS)
def test_dequantization(
    side: Side, half: bool, bits: int, dequant: Dequant, asymmetric: bool
) -> None:
    """Every code at every place, under scales from the smallest subnormal to the largest that the
    kind can hold: (q - z) * s, rounded once."""
    dtype = DTYPES[half]
    words, codes = words_of_every_code(half, bits)
    scale = telling(half)[:: 1 if bits == 4 else 8]
    kinds = [Dequant.TWO_FIELD, Dequant.ONE_FIELD, Dequant.WIDE]
    as_torch = torch.from_numpy(scale.astype(np.int16)).view(dtype)
    allowed = [kinds.index(layout.choose_dequant(s, bits)) <= dequant for s in as_torch[:, None]]
    scale = scale[np.array(allowed)]
    scales = np.stack([scale, scale[::-1]], axis=1)  # column n, column n + 8

    rng = np.random.default_rng([14, bits, dequant])
    # All (scale pair, word) combinations; zero points at random, the extremes among them.
    scales = np.repeat(scales, len(words), axis=0)
    repeats = len(scale)
    zeros = np.full(scales.shape, layout.symmetric_zero(bits))
    if asymmetric:
        zeros = rng.integers(0, 1 << bits, scales.shape)
        zeros[::5] = rng.choice([0, (1 << bits) - 1], zeros[::5].shape)
    stored_scales = stored_column_pairs(
        torch.from_numpy(scales.astype(np.int16)).view(dtype),
        lambda rows: layout.pack_scales(rows, bits, dequant),
    )
    stored_zeros = stored_column_pairs(
        torch.from_numpy(zeros), lambda rows: layout.pack_zeros(rows, dtype, bits, dequant)
    )
    got = side.dequantize(
        half, bits, int(dequant), asymmetric, np.tile(words, (repeats, 1)), stored_scales,
        stored_zeros if asymmetric else np.zeros_like(stored_zeros),
    )  # fmt: skip

    # fragment[2 * k_half + column_half] holds the pair of rows.
    code = np.tile(codes, (repeats, 1, 1, 1)).reshape(-1, 4, 2)
    column = np.array([0, 1, 0, 1])
    difference = code - zeros[:, column, None]
    expected = nearest(difference * value(scales, half)[:, column, None], half)
    halves = np.stack([got & 0xFFFF, got >> 16], axis=2)
    # A product of zero is +0 or -0, depending on the kind.
    zero = expected & 0x7FFF == 0
    assert_same_bits(
        np.where(zero, halves & 0x7FFF, halves),
        np.where(zero, 0, expected),
        f"{dequant.name} {bits} bits, operands code, scale, zero",
        code, scales[:, column, None], zeros[:, column, None],
    )  # fmt: skip


@pytest.mark.gpu
@HALF
@pytest.mark.parametrize(("bits", "dequant", "asymmetric"), KINDS)
def test_dequantization_of_anything_on_both_sides(
    both: tuple[Host, Device], half: bool, bits: int, dequant: Dequant, asymmetric: bool
) -> None:
    """Random words, scales and zero points, NaN and infinities among them: the same bits."""
    rng = np.random.default_rng([15, bits, dequant])
    words = rng.integers(0, 1 << 32, (1 << 14, bits // 4), np.uint32)
    scales, zeros = rng.integers(0, 1 << 32, (2, 1 << 14), np.uint32)
    arguments = (half, bits, int(dequant), asymmetric, words, scales, zeros)
    host, device = (side.dequantize(*arguments) for side in both)
    assert_same_bits(device, host, f"{dequant.name} {bits} bits")
