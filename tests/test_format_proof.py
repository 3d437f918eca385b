# SPDX-License-Identifier: Apache-2.0
"""The packed format, proven before it is frozen: where every code lies, and that one packed tile in
shared memory feeds every kernel family exactly and without bank conflicts."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tests.kernels import emulator

native = emulator()
Dtype = native.Dtype
FIELD_BASES = {("half", 4): 3, ("bfloat16", 4): 0, ("half", 8): 0, ("bfloat16", 8): 0}

# (base, bits): SHA-256 of the map (k, n) -> (word, half, bit) as little-endian int32 (64, 64, 3).
GOLDEN_MAPS: dict[tuple[int, int], str] = {
    (3, 4): "b82e54c1619aba9ecd199310dd1b16b09236b3562386ef23f26b482c2562dcd3",
    (0, 4): "497442dba11b5f2f0c9d640b83b68820a2673176ed65d5b58ecec4657e9c02cd",
    (0, 8): "6011c5e8060020cbff6c853aa487d349813dee6f3c4e8582093878e548b6798b",
}

# Some entries by hand, from docs/layout.md: (base, bits, k, n) -> (word, half, bit).
GOLDEN_ENTRIES = {
    (0, 4, 0, 0): (0, 0, 4),  # lane 0, word 0
    (0, 4, 0, 8): (0, 0, 0),  # the other column of the word
    (0, 4, 8, 0): (0, 0, 12),  # the other half of k: a byte further up
    (0, 4, 1, 0): (0, 1, 4),  # the next row: the upper 16 bits
    (3, 4, 0, 0): (0, 0, 7),
    (3, 4, 0, 8): (0, 0, 3),
    (3, 4, 8, 0): (0, 0, 15),  # wraps: bits 15, 0, 1, 2
    (3, 4, 8, 8): (0, 0, 11),
    (0, 4, 2, 0): (4, 0, 4),  # lane 1
    (0, 4, 0, 1): (16, 0, 4),  # lane 4
    (0, 4, 0, 16): (1, 0, 4),  # word 1
    (0, 4, 16, 0): (128, 0, 4),  # the next atom
    (0, 4, 63, 63): (511, 1, 8),
    (0, 8, 0, 0): (0, 0, 0),
    (0, 8, 0, 8): (0, 0, 8),
    (0, 8, 8, 0): (128, 0, 0),  # the second plane
    (0, 8, 16, 0): (256, 0, 0),
    (0, 8, 63, 63): (1023, 1, 8),
}


@pytest.mark.parametrize(("base", "bits"), GOLDEN_MAPS)
def test_golden_map(base: int, bits: int) -> None:
    position = native.code_map(base, bits).astype("<i4")
    for (entry_base, entry_bits, k, n), expected in GOLDEN_ENTRIES.items():
        if (entry_base, entry_bits) == (base, bits):
            assert tuple(position[k, n]) == expected, f"code at k={k}, n={n}"
    digest = hashlib.sha256(position.tobytes()).hexdigest()
    assert digest == GOLDEN_MAPS[base, bits]


@pytest.mark.parametrize(("base", "bits"), GOLDEN_MAPS)
def test_every_bit_of_a_tile_belongs_to_one_code(base: int, bits: int) -> None:
    word, half, bit = np.moveaxis(native.code_map(base, bits), 2, 0)
    owners = np.zeros((128 * bits, 2, 16), int)
    for i in range(bits):
        np.add.at(owners, (word, half, (bit + i) % 16), 1)
    np.testing.assert_array_equal(owners, 1)


def pack(codes: np.ndarray, base: int, bits: int) -> np.ndarray:
    """One tile of codes (64, 64) to words, bit by bit."""
    word, half, bit = np.moveaxis(native.code_map(base, bits), 2, 0)
    words = np.zeros(128 * bits, np.uint32)
    for i in range(bits):
        shift = (16 * half + (bit + i) % 16).astype(np.uint32)
        np.bitwise_or.at(words, word, (codes.astype(np.uint32) >> i & 1) << shift)
    return words


def activations(rng: np.random.Generator, rows: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Small integers (rows, 64), and their patterns in the dtype."""
    values = rng.integers(-4, 5, (rows, 64))
    pattern = (
        values.astype(np.float16).view(np.uint16)
        if name == "half"
        else (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    )
    return values, pattern


@pytest.mark.parametrize(("name", "bits"), FIELD_BASES)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("consumer", ["operand_b", "operand_a", "register_a"])
def test_one_packed_tile_feeds(consumer: str, name: str, bits: int, seed: int) -> None:
    rng = np.random.default_rng([bits, seed])
    tiles = 2 if consumer == "register_a" else 1
    codes = rng.integers(0, 1 << bits, (tiles, 64, 64))
    packed = np.stack([pack(tile, FIELD_BASES[name, bits], bits) for tile in codes])
    a, a_pattern = activations(rng, 16 if consumer == "operand_b" else 8, name)

    dtype = Dtype.HALF if name == "half" else Dtype.BFLOAT16
    options = native.LaunchOptions(seed=seed)
    out, accesses = native.consume(consumer, dtype, bits, packed, a_pattern, options)

    weights = np.concatenate(list(codes), axis=1) - (1 << (bits - 1))  # (k, n)
    expected = a @ weights if consumer == "operand_b" else weights.T @ a.T
    np.testing.assert_array_equal(out, expected)
    weight_loads = "ld_shared_v2" if consumer == "register_a" else "ld_shared_v4"
    warps = 4 if consumer == "register_a" else 1
    assert accesses[weight_loads].instructions == warps * 4 * (bits // 4)
    conflicts = {name: count.extra_wavefronts for name, count in accesses.items()}
    assert not any(conflicts.values()), conflicts
