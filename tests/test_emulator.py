# SPDX-License-Identifier: Apache-2.0
"""The emulator itself: each primitive against the PTX ISA's maps and exact arithmetic, and every
mistake it is there to find."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.kernels import emulator

native = emulator()
Dtype, Fault = native.Dtype, native.Fault
LANES = np.arange(32)
SCHEDULES = [(0, "eager", 1), (0, "late", 1), (1, "late", 2), (2, "random", 3), (3, "random", 6)]


def options(seed: int, delivery: str, resident_blocks: int) -> native.LaunchOptions:
    return native.LaunchOptions(seed=seed, delivery=delivery, resident_blocks=resident_blocks)


# ---- 16-bit floats, defined by their parameters alone

FORMATS = {"half": (11, 5), "bfloat16": (8, 8)}  # significant bits, exponent bits


def value_of(bits: int, name: str) -> Fraction:
    precision, exponent_bits = FORMATS[name]
    mantissa = bits & (1 << (precision - 1)) - 1
    exponent = bits >> (precision - 1) & (1 << exponent_bits) - 1
    assert exponent != (1 << exponent_bits) - 1, "infinite or NaN"
    if exponent:
        mantissa += 1 << (precision - 1)
    scale = max(exponent, 1) - (1 << (exponent_bits - 1)) + 2 - precision
    value = Fraction(mantissa) * Fraction(2) ** scale
    return -value if bits & 0x8000 else value


def nearest_even(value: Fraction, name: str) -> int:
    """Bits of ``value`` rounded once. Zero is positive."""
    precision, exponent_bits = FORMATS[name]
    sign, value = (0x8000, -value) if value < 0 else (0, value)
    smallest = 3 - (1 << (exponent_bits - 1)) - precision  # exponent of the least subnormal
    exponent = smallest
    while value >= Fraction(2) ** (exponent + precision):
        exponent += 1
    steps = value / Fraction(2) ** exponent
    whole = steps.numerator // steps.denominator
    rest = steps - whole
    whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    # Counting on from the subnormals, the patterns of all finite numbers ascend by one per step.
    bits = whole + (exponent - smallest) * (1 << (precision - 1))
    infinity = ((1 << exponent_bits) - 1) << (precision - 1)
    return sign | min(bits, infinity)


def finite_patterns(rng: np.random.Generator, name: str, count: int) -> np.ndarray:
    """Random finite patterns, subnormals and neighbours of powers of two over-represented."""
    precision, exponent_bits = FORMATS[name]
    exponents = rng.integers(0, (1 << exponent_bits) - 1, count)
    exponents[rng.random(count) < 0.3] = 0
    mantissas = rng.integers(0, 1 << (precision - 1), count)
    edge = rng.random(count) < 0.3
    mantissas[edge] = rng.choice([0, 1, (1 << (precision - 1)) - 1], edge.sum())
    signs = rng.integers(0, 2, count) << 15
    return (signs | exponents << (precision - 1) | mantissas).astype(np.uint32)


def nearby_patterns(rng: np.random.Generator, name: str, of: np.ndarray) -> np.ndarray:
    """Patterns whose exponents differ little from those of ``of``: sums that cancel and tie."""
    precision, exponent_bits = FORMATS[name]
    exponents = (of >> (precision - 1) & (1 << exponent_bits) - 1).astype(np.int64)
    exponents = np.clip(exponents + rng.integers(-12, 13, of.shape), 0, (1 << exponent_bits) - 2)
    mantissas = rng.integers(0, 1 << (precision - 1), of.shape)
    signs = rng.integers(0, 2, of.shape) << 15
    return (signs | exponents << (precision - 1) | mantissas).astype(np.uint32)


def assert_rounded(
    got: np.ndarray, exact: list[Fraction], name: str, *operands: np.ndarray
) -> None:
    for i, value in enumerate(exact):
        expected = nearest_even(value, name)
        found = int(got[i])
        if value == 0:
            found &= 0x7FFF  # the sign of zero has its own test
        assert found == expected, (
            f"{name}, operands {[hex(int(x[i])) for x in operands]}: "
            f"got {hex(found)}, expected {hex(expected)}"
        )


@pytest.mark.parametrize("name", FORMATS)
def test_mul2_and_sub2_round_once(name: str) -> None:
    rng = np.random.default_rng(1)
    a = finite_patterns(rng, name, 4000)
    b = np.concatenate([finite_patterns(rng, name, 2000), nearby_patterns(rng, name, a[2000:])])
    values = [(value_of(int(x), name), value_of(int(y), name)) for x, y in zip(a, b, strict=True)]
    product = getattr(native, f"mul2_{name}")(a, b) & 0xFFFF
    assert_rounded(product, [x * y for x, y in values], name, a, b)
    difference = getattr(native, f"sub2_{name}")(a, b) & 0xFFFF
    assert_rounded(difference, [x - y for x, y in values], name, a, b)


@pytest.mark.parametrize("name", FORMATS)
def test_fma2_rounds_once(name: str) -> None:
    rng = np.random.default_rng(2)
    a, b = finite_patterns(rng, name, 6000), finite_patterns(rng, name, 6000)
    product = getattr(native, f"mul2_{name}")(a, b) & 0xFFFF
    c = np.where(rng.random(6000) < 0.7, nearby_patterns(rng, name, product), a)
    exact = [
        value_of(int(x), name) * value_of(int(y), name) + value_of(int(z), name)
        for x, y, z in zip(a, b, c, strict=True)
    ]
    assert_rounded(getattr(native, f"fma2_{name}")(a, b, c) & 0xFFFF, exact, name, a, b, c)


@pytest.mark.parametrize("name", FORMATS)
def test_fma2_sees_beyond_a_tie(name: str) -> None:
    # (1 + u) * 1.5 lies half way between two numbers; the least subnormal moves the sum off that
    # tie. A sum rounded to double first would fall back onto it.
    precision, _ = FORMATS[name]
    one = 15 << 10 if name == "half" else 127 << 7
    odd = one | 1  # 1 + 2^(1 - precision)
    three_halves = one | 1 << (precision - 2)
    product = value_of(odd, name) * value_of(three_halves, name)
    spacing = Fraction(2) ** (1 - precision)
    assert product / spacing % 1 == Fraction(1, 2)
    down, up = nearest_even(product - spacing / 4, name), nearest_even(product + spacing / 4, name)
    fma2 = getattr(native, f"fma2_{name}")
    assert fma2(odd, three_halves, 0x8001) & 0xFFFF == down
    assert fma2(odd, three_halves, 0x0001) & 0xFFFF == up


@pytest.mark.parametrize("name", FORMATS)
def test_every_pattern_converts_to_float_and_back(name: str) -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16)
    values = getattr(native, f"to_float_{name}")(patterns)
    if name == "half":
        expected = patterns.view(np.float16).astype(np.float32)
    else:
        expected = (patterns.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(values, expected)
    number = ~np.isnan(values)
    pairs = getattr(native, f"pack2_{name}")(values[number], values[number][::-1])
    np.testing.assert_array_equal(pairs & 0xFFFF, patterns[number])
    np.testing.assert_array_equal(pairs >> 16, patterns[number][::-1])
    assert getattr(native, f"pack2_{name}")(np.float32("nan"), np.float32(0)) == 0x7FFF


@pytest.mark.parametrize("name", FORMATS)
def test_halves_are_independent_and_zeros_keep_their_sign(name: str) -> None:
    one = 0x3C00 if name == "half" else 0x3F80
    infinity = 0x7C00 if name == "half" else 0x7F80
    fma2, mul2, sub2 = (getattr(native, f"{f}_{name}") for f in ("fma2", "mul2", "sub2"))
    assert mul2(one << 16 | 0x8000, one << 16 | one) == one << 16 | 0x8000
    assert sub2(one << 16 | 0x8000, one << 16) == 0x8000  # 1 - 1 = +0, -0 - +0 = -0
    assert fma2(infinity << 16 | one, one << 16 | one, 0x8000 << 16) == infinity << 16 | one
    assert mul2(infinity, 0) == 0x7FFF
    assert getattr(native, f"broadcast_low_{name}")(0x12345678) == 0x56785678
    assert getattr(native, f"broadcast_high_{name}")(0x12345678) == 0x12341234


def test_prmt_selects_bytes_and_replicates_signs() -> None:
    a, b = 0x83028100, 0x07860584  # bytes 00 81 02 83 | 84 05 86 07
    source = [0x00, 0x81, 0x02, 0x83, 0x84, 0x05, 0x86, 0x07]
    for select in range(16):
        byte = source[select % 8]
        expected = (0xFF if byte & 0x80 else 0) if select >= 8 else byte
        for position in range(4):
            got = int(native.prmt(a, b, select << 4 * position)) >> 8 * position & 0xFF
            assert got == expected, f"selector {select} at byte {position}"


# ---- fragment maps, element by element as the PTX ISA states them


def pack_halves(values: np.ndarray, dtype: native.Dtype) -> np.ndarray:
    """Pairs along the last axis to registers."""
    pack2 = native.pack2_half if dtype == Dtype.HALF else native.pack2_bfloat16
    values = values.astype(np.float32)
    return pack2(values[..., 0::2], values[..., 1::2])


@pytest.mark.parametrize("dtype", [Dtype.HALF, Dtype.BFLOAT16])
def test_mma_fragment_maps(dtype: native.Dtype) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(-8, 9, (16, 16)), rng.integers(-8, 9, (16, 8))
    group, thread = LANES[:, None] // 4, LANES[:, None] % 4
    i = np.arange(8)
    row = np.where((i < 2) | ((i >= 4) & (i < 6)), group, group + 8)
    column = thread * 2 + (i & 1) + np.where(i < 4, 0, 8)
    a_registers = pack_halves(a[row, column], dtype)
    i = np.arange(4)
    b_registers = pack_halves(b[thread * 2 + (i & 1) + np.where(i < 2, 0, 8), group], dtype)

    d = native.mma(dtype, a_registers, b_registers)

    expected = (a @ b)[np.where(i < 2, group, group + 8), thread * 2 + (i & 1)]
    np.testing.assert_array_equal(d, expected)


def test_ldmatrix_fragment_map() -> None:
    matrices = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    fragments, _ = native.ldmatrix(matrices, 16)
    halves = fragments.view(np.uint16).reshape(32, 4, 2)
    for lane in range(32):
        for matrix in range(4):
            for half in range(2):
                expected = matrices[matrix, lane // 4, lane % 4 * 2 + half]
                assert halves[lane, matrix, half] == expected, (lane, matrix, half)


# ---- bank conflicts


@pytest.mark.parametrize(
    ("address", "active", "width", "expected"),
    [
        (LANES * 16, ~0, 16, 0),
        (LANES * 0, ~0, 16, 0),  # all lanes the same words
        (LANES * 128, ~0, 16, 4 * 7),  # eight lanes of a phase in the same four banks
        (LANES * 128, 0x01010101, 16, 0),  # one lane per phase
        (LANES * 128, 0x00000003, 16, 1),
        (LANES * 144, ~0, 16, 0),  # rows padded by 16 bytes
        (LANES * 8, ~0, 8, 0),
        (LANES * 16, ~0, 8, 2 * 1),  # 16 lanes over 256 bytes: two words per bank
        (LANES * 16 + (LANES >> 3 & 1) * 8, ~0, 8, 0),  # as wgmma consumers read packed words
        (LANES * 4, ~0, 4, 0),
        (LANES * 8, ~0, 4, 1),
        (LANES * 128, ~0, 4, 31),
    ],
)
def test_bank_conflict_rule(address: np.ndarray, active: int, width: int, expected: int) -> None:
    got = native.extra_wavefronts(address.astype(np.uint32), active & 0xFFFFFFFF, width)
    assert got == expected


@pytest.mark.parametrize(("row_pitch", "extra"), [(16, 0), (80, 0), (112, 0), (64, 12), (128, 28)])
def test_launch_counts_bank_conflicts(row_pitch: int, extra: int) -> None:
    _, accesses = native.ldmatrix(np.zeros(256, np.uint16), row_pitch)
    for instruction in ("st_shared_v4", "ldmatrix_x4"):
        assert accesses[instruction].instructions == 1
        assert accesses[instruction].extra_wavefronts == extra, instruction


# ---- whole grids, and the mistakes


def reversed_chunks(values: np.ndarray, blocks: int) -> np.ndarray:
    return values.reshape(blocks, 64, 16)[:, ::-1].reshape(-1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_correct_grid_is_correct_under_every_schedule(schedule: tuple[int, str, int]) -> None:
    values = np.random.default_rng(4).integers(0, 256, 6 * 1024, np.uint8)
    out = native.reverse(values, 3, 2, options=options(*schedule))
    np.testing.assert_array_equal(out, reversed_chunks(values, 6))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_thread_that_polls_lets_the_others_go(schedule: tuple[int, str, int]) -> None:
    values = np.random.default_rng(10).integers(0, 256, 1024, np.uint8)
    out = native.reverse(values, fault=Fault.SPIN, options=options(*schedule))
    np.testing.assert_array_equal(out, reversed_chunks(values, 1))


@pytest.mark.parametrize("width", [4, 8, 16])
@pytest.mark.parametrize("delivery", ["eager", "late", "random"])
def test_partial_copies_fill_with_zeros(width: int, delivery: str) -> None:
    values = np.random.default_rng(5).integers(1, 256, 32 * width, np.uint8)
    for present in range(width + 1):
        out = native.partial_copy(values, width, present, options(6, delivery, 1))
        expected = values.reshape(32, width).copy()
        expected[:, present:] = 0
        np.testing.assert_array_equal(out.reshape(32, width), expected, f"{present} bytes present")


@pytest.mark.parametrize("fault", [Fault.NO_WAIT, Fault.WAIT_TOO_WEAK])
def test_late_copies_are_nan_until_waited_for(fault: native.Fault) -> None:
    values = np.random.default_rng(7).integers(0, 255, 1024, np.uint8)
    out = native.reverse(values, fault=fault, options=options(0, "late", 1))
    assert (out == 0xFF).all()


def test_a_missing_barrier_is_seen_under_every_schedule() -> None:
    values = np.random.default_rng(8).integers(0, 255, 1024, np.uint8)
    for seed in range(20):
        for delivery in ("eager", "late", "random"):
            out = native.reverse(values, fault=Fault.NO_BARRIER, options=options(seed, delivery, 1))
            assert (out != reversed_chunks(values, 1)).any(), (seed, delivery)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault.EXIT_BEFORE_BARRIER, r"block \(0, 0\) thread \d+: (exits while threads of its block "
         r"wait at bar_sync|bar_sync: threads of the block have exited)"),
        (Fault.EXIT_BEFORE_LDMATRIX, r"thread \d+: (exits while lanes of its warp wait in "
         r"ldmatrix_x4|ldmatrix_x4: lanes of the warp have exited)"),
        (Fault.DIVERGENCE, r"thread \d+: divergence: at \w+ while other lanes wait in \w+"),
        (Fault.DEADLOCK, r"deadlock: (?s:.*)threads 32\.\.63: lanes 0xffff0000 wait at bar_sync; "
         r"lanes 0x0000ffff wait in ldmatrix_x4"),
        (Fault.EXIT_WITH_COPIES, r"block \(0, 0\) thread \d+: exits with 1 cp.async copies that no "
         r"wait_group has covered"),
        (Fault.LIVELOCK, r"block \(0, 0\) thread 37: livelock: \d+ instructions without"),
        (Fault.MISALIGNED_SHARED, r"thread 37: cp_async: shared address 600 is misaligned"),
        (Fault.SHARED_OUT_OF_RANGE, r"thread 37: cp_async: shared address 1024 \+ 16 bytes is out"),
        (Fault.MISALIGNED_GLOBAL, r"thread 37: cp_async: misaligned global address"),
        (Fault.GLOBAL_OUT_OF_RANGE, r"thread 63: cp_async: reads 16 bytes outside .* 1024 of 1024"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_mistakes_are_reported(
    fault: native.Fault, message: str, schedule: tuple[int, str, int]
) -> None:
    with pytest.raises(native.LaunchError, match=message) as error:
        native.reverse(np.zeros(1024, np.uint8), fault=fault, options=options(*schedule))
    assert str(error.value).startswith("reverse_probe: ")


def test_the_emulator_works_on_after_a_failed_launch() -> None:
    values = np.random.default_rng(9).integers(0, 256, 1024, np.uint8)
    for _ in range(50):
        with pytest.raises(native.LaunchError):
            native.reverse(values, fault=Fault.DEADLOCK, options=options(10, "late", 1))
    np.testing.assert_array_equal(native.reverse(values), reversed_chunks(values, 1))


def test_launches_beyond_the_hardware_are_refused() -> None:
    values = np.zeros(1024, np.uint8)
    native.reverse(values, shared_bytes=227 * 1024)
    with pytest.raises(native.LaunchError, match="232449 bytes of shared memory, expected at most"):
        native.reverse(values, shared_bytes=227 * 1024 + 1)
    with pytest.raises(ValueError, match="delivery is 'soon', expected 'eager', 'late' or"):
        native.LaunchOptions(delivery="soon")


# ---- the twins

CSRC = Path(__file__).parents[1] / "csrc" / "cuda" / "ptx"
TWINS = Path(__file__).parent / "emulator" / "ptx"


def signatures(path: Path) -> set[str]:
    """Template header, return type, name and parameters of every device function, without those
    on CUDA's own 16-bit types, which kernels never see."""
    function = r"((?:template <[^>]*>\s*)?PADMARLIN_DEVICE [^{]*?\))\s*\{"
    found = re.findall(function, path.read_text())
    normal = {re.sub(r"\s+", " ", signature) for signature in found}
    return {s for s in normal if "__half2" not in s and "__nv_bfloat162" not in s}


@pytest.mark.parametrize("header", sorted(path.name for path in CSRC.glob("*.cuh")))
def test_every_primitive_has_a_host_twin(header: str) -> None:
    missing = signatures(CSRC / header) - signatures(TWINS / header)
    assert not missing, f"tests/emulator/ptx/{header} lacks {sorted(missing)}"
