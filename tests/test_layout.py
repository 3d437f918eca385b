# SPDX-License-Identifier: Apache-2.0
"""The layout's bits in Python against a spelled-out map, and that what they stand for is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from padmarlin import layout
from padmarlin.layout import TILE, Dequant

ORDERS = [("f16_w4", 4), ("bf16_w4", 4), ("w8", 8)]

# (order, k, n) -> (word of the tile, bits of the word from the least significant), by hand from the
# drawings in docs/layout.md.
SPELLED_OUT = [
    ("bf16_w4", 0, 0, 0, [4, 5, 6, 7]),
    ("bf16_w4", 0, 8, 0, [0, 1, 2, 3]),
    ("bf16_w4", 1, 0, 0, [20, 21, 22, 23]),
    ("bf16_w4", 8, 0, 0, [12, 13, 14, 15]),
    ("bf16_w4", 9, 8, 0, [24, 25, 26, 27]),
    ("bf16_w4", 2, 0, 4, [4, 5, 6, 7]),  # t = 1: the next lane
    ("bf16_w4", 0, 1, 16, [4, 5, 6, 7]),  # g = 1: four lanes on
    ("bf16_w4", 0, 16, 1, [4, 5, 6, 7]),  # j = 1: the lane's next word
    ("bf16_w4", 16, 0, 128, [4, 5, 6, 7]),  # the next k-slice: an atom of 128 words on
    ("f16_w4", 0, 0, 0, [7, 8, 9, 10]),
    ("f16_w4", 0, 8, 0, [3, 4, 5, 6]),
    ("f16_w4", 8, 0, 0, [15, 0, 1, 2]),  # wraps inside its half
    ("f16_w4", 9, 0, 0, [31, 16, 17, 18]),
    ("f16_w4", 8, 8, 0, [11, 12, 13, 14]),
    ("w8", 0, 0, 0, list(range(8))),
    ("w8", 0, 8, 0, list(range(8, 16))),
    ("w8", 1, 0, 0, list(range(16, 24))),
    ("w8", 8, 0, 128, list(range(8))),  # the second plane
    ("w8", 16, 0, 256, list(range(8))),
    ("w8", 63, 63, 1023, list(range(24, 32))),
]


@pytest.mark.parametrize("order, k, n, word, bits_of_word", SPELLED_OUT)
def test_each_bit_of_a_code_lies_where_the_format_says(order, k, n, word, bits_of_word):
    bits = dict(ORDERS)[order]
    for code_bit, word_bit in enumerate(bits_of_word):
        codes = torch.zeros((TILE, TILE), dtype=torch.int32)
        codes[k, n] = 1 << code_bit
        words = layout.pack_tiles(codes, bits, layout.field_base(order)).flatten()
        assert words.nonzero().flatten().tolist() == [word], (order, k, n)
        assert int(words[word]) & 0xFFFFFFFF == 1 << word_bit, (order, k, n, code_bit)


@pytest.mark.parametrize("order, bits", ORDERS)
def test_packing_is_a_bijection(order, bits):
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(
        0, 1 << bits, (3 * TILE, 2 * TILE), dtype=torch.int32, generator=generator
    )
    base = layout.field_base(order)
    words = layout.pack_tiles(codes, bits, base)
    assert words.shape == (2, 3, layout.tile_words(bits))
    assert torch.equal(layout.unpack_tiles(words, bits, base), codes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("largest", [2.0**-8, 0.03, 0.0625, 0.07, 0.49, 4.0, 60000.0])
def test_scales_and_zeros_survive_storage_bit_for_bit(dtype, bits, largest):
    generator = torch.Generator().manual_seed(2)
    scales = ((torch.rand((3, 128), generator=generator) * 2 - 1) * largest).to(dtype)
    scales[0, :4] = torch.tensor([0.0, torch.finfo(dtype).smallest_normal, 2.0**-24, -(2.0**-24)])
    kind = layout.choose_dequant(scales, bits)
    stored = layout.pack_scales(scales, bits, kind)
    assert torch.isfinite(stored).all()
    assert torch.equal(layout.unpack_scales(stored, bits, kind), scales)
    zeros = torch.randint(0, 1 << bits, (3, 128), generator=generator, dtype=torch.int32)
    packed = layout.pack_zeros(zeros, dtype, bits, kind)
    assert torch.equal(layout.unpack_zeros(packed, dtype, bits, kind), zeros)


def test_a_lane_finds_its_eight_scales_together():
    scales = torch.arange(64, dtype=torch.float16).view(1, 64)
    stored = layout.pack_scales(scales, 4, Dequant.WIDE)[0]
    for g in range(8):
        assert stored[8 * g : 8 * g + 8].tolist() == [g + 8 * i for i in range(8)], g


@pytest.mark.parametrize(
    "dtype, bits, two_field, one_field",
    [
        (torch.float16, 4, 65504 / 2**21, 65504 / 2**17),
        (torch.bfloat16, 4, 255 * 2.0**-13, 255 * 2.0**-9),
        (torch.float16, 8, None, 65504 / 2**24),
        (torch.bfloat16, 8, None, 255 * 2.0**-13),
    ],
)
def test_the_largest_scale_chooses_the_dequantization(dtype, bits, two_field, one_field):
    def kind(scale):
        return layout.choose_dequant(torch.tensor([[scale]], dtype=torch.float64).to(dtype), bits)

    above = 1 + 2.0**-6
    if two_field is not None:
        assert kind(two_field) == kind(-two_field) == Dequant.TWO_FIELD
        assert kind(two_field * above) == Dequant.ONE_FIELD
    assert kind(one_field) == Dequant.ONE_FIELD
    assert kind(one_field * above) == kind(-one_field * above) == Dequant.WIDE
    assert kind(0.0) == (Dequant.TWO_FIELD if bits == 4 else Dequant.ONE_FIELD)


# ---- the algebra of csrc/cuda/dequant.cuh, over every code and every scale


def every_scale(dtype: torch.dtype) -> np.ndarray:
    """All finite values of a 16-bit float type, as float64."""
    patterns = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    values = patterns.double().numpy()
    return values[np.isfinite(values)]


def rounded(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """float64 to the nearest value of `dtype`. The values here are exact in float32 (sums of
    products of 8- and 11-bit significands), so the detour over it does not round."""
    assert np.array_equal(values.astype(np.float32).astype(np.float64), values)
    return torch.from_numpy(values.astype(np.float32)).to(dtype).double().numpy()


@pytest.mark.parametrize("dtype, unit", [(torch.float16, 24), (torch.bfloat16, 133)])
@pytest.mark.parametrize("bits, bit", [(4, 7), (4, 3), (4, 4), (4, 0), (8, 0)])
def test_subnormal_dequantization_is_exact_for_every_code_and_scale(dtype, unit, bits, bit):
    linear = 11 if dtype == torch.float16 else 8
    if bit + bits > linear:
        pytest.skip("this field would leave the linear range; the kernel static_asserts it")
    scales = every_scale(dtype)
    stored = scales * 2.0 ** (unit - bit)
    in_range = np.abs(stored) <= torch.finfo(dtype).max
    scales, stored = scales[in_range], stored[in_range]
    assert np.array_equal(rounded(stored, dtype), stored)
    zero = 1 << (bits - 1)
    addend = -stored * zero * 2.0 ** (bit - unit)
    assert np.array_equal(rounded(addend, dtype), addend), "z * s is not exact"
    for code in range(1 << bits):
        # The field, read as a 16-bit float:
        field = torch.tensor([code << bit], dtype=torch.int16).view(dtype).double().item()
        assert field == code * 2.0 ** (bit - unit)
        got = rounded(field * stored + addend, dtype)
        expected = rounded((code - zero) * scales, dtype)
        assert np.array_equal(got, expected), (code, scales[got != expected][:4])
