# SPDX-License-Identifier: Apache-2.0
"""16-bit floats as numpy sees them: fp16 and bf16 patterns, their values, and one correct rounding.

Independent of the emulator's float16.h, which is one of the two sides under test.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

NAN = 0x7FFF  # what the hardware writes for every NaN
MANTISSA_BITS = {True: 10, False: 7}  # by `half`: fp16, bf16
MIN_EXPONENT = {True: -14, False: -126}  # of normal numbers
EXPONENTS = {True: 32, False: 256}  # patterns of the exponent field, the last for inf and NaN


def value(patterns: Array, half: bool) -> Array:
    """float64, exact."""
    patterns = np.asarray(patterns).astype(np.uint16)
    if half:
        return patterns.view(np.float16).astype(np.float64)
    with np.errstate(invalid="ignore"):  # NaN
        return (patterns.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def nearest(values: Array, half: bool) -> Array:
    """The patterns nearest to float64 values, ties to even; NaN as the hardware writes it."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(values, np.float64)
        _, exponent = np.frexp(values)  # |value| in [2^(e - 1), 2^e)
        exponent = np.maximum(exponent - 1, MIN_EXPONENT[half])
        # Spacing of the numbers around the value; scaling by a power of two is exact here.
        steps = np.rint(np.ldexp(values, MANTISSA_BITS[half] - exponent))
        rounded = np.ldexp(steps, exponent - MANTISSA_BITS[half])
        rounded = np.where(np.isfinite(values), rounded, values)
        if half:
            patterns = rounded.astype(np.float16).view(np.uint16)
        else:
            patterns = (rounded.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), NAN, patterns).astype(np.uint32)


def finite(half: bool) -> Array:
    """Every finite pattern, both signs."""
    patterns = np.arange(1 << 16, dtype=np.uint32)
    exponent = patterns >> MANTISSA_BITS[half] & (EXPONENTS[half] - 1)
    return patterns[exponent != EXPONENTS[half] - 1]


def telling(half: bool) -> Array:
    """Finite patterns of both signs: every exponent with the mantissas where roundings turn, and
    the smallest subnormals."""
    top = 1 << MANTISSA_BITS[half]
    mantissas = np.array([0, 1, 2, 3, top // 2 - 1, top // 2, top // 2 + 1, top - 2, top - 1])
    exponents = np.arange(EXPONENTS[half] - 1)
    patterns = (exponents[:, None] << MANTISSA_BITS[half] | mantissas).reshape(-1)
    patterns = np.union1d(patterns, np.arange(64))
    return np.concatenate([patterns, patterns | 0x8000]).astype(np.uint32)


def random_finite(rng: np.random.Generator, half: bool, count: int) -> Array:
    return rng.choice(finite(half), count)


def near(rng: np.random.Generator, half: bool, of: Array, distance: int) -> Array:
    """Finite patterns whose exponents differ from those of `of` by at most `distance`: sums that
    cancel, ties, addends just below the last bit."""
    bits = MANTISSA_BITS[half]
    exponent = (of >> bits & (EXPONENTS[half] - 1)).astype(np.int64)
    exponent += rng.integers(-distance, distance + 1, of.shape)
    exponent = np.clip(exponent, 0, EXPONENTS[half] - 2)
    mantissa = rng.integers(0, 1 << bits, of.shape)
    sign = rng.integers(0, 2, of.shape) << 15
    return (sign | exponent << bits | mantissa).astype(np.uint32)


def pairs(low: Array, high: Array) -> Array:
    """Registers: `low` in bits 15..0."""
    return (np.asarray(high).astype(np.uint32) << 16) | np.asarray(low).astype(np.uint32)
