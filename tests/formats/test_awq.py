# SPDX-License-Identifier: Apache-2.0
"""repack_awq against an independent reading of AWQ (tests/oracle.py), bit for bit, and its
refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from padmarlin import Shard, dequantize, repack_awq
from padmarlin.layout import Dequant
from tests.oracle import Awq, assert_same, random_awq


@st.composite
def layers(draw: st.DrawFn) -> Awq:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random_awq(
        rng,
        draw(st.one_of(st.integers(1, 600), st.integers(1, 75).map(lambda words: 8 * words))),
        draw(st.sampled_from([1, 7, 8, 64, 100, 1000])),
        group_size=draw(st.sampled_from([-1, 16, 24, 32, 64, 100, 128, 256])),
        symmetric=draw(st.booleans()),
        # Scales that call for each of the three ways to dequantize.
        largest_scale=draw(st.sampled_from([0.003, 0.02, 0.3, 100.0])),
    )


DTYPES = st.sampled_from([torch.float16, torch.bfloat16])


@settings(derandomize=True, deadline=None, max_examples=100)
@given(layers(), DTYPES)
def test_whole(layer: Awq, dtype: torch.dtype) -> None:
    weight = repack_awq(**layer.arguments(), dtype=dtype)
    assert (weight.k, weight.n) == (layer.k, layer.n)
    assert weight.dtype == dtype
    assert_same(dequantize(weight), layer.dequantized(dtype))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(layers(), DTYPES, st.integers(1, 4), st.sampled_from(["k", "n"]))
def test_shards_of_whole_tensors(layer: Awq, dtype: torch.dtype, tp: int, axis: str) -> None:
    assume((layer.k if axis == "k" else layer.n) % tp == 0)
    shards = [Shard(axis, rank, tp) for rank in range(tp)]
    parts = [dequantize(repack_awq(**layer.arguments(), dtype=dtype, shard=s)) for s in shards]
    assert_same(torch.cat(parts, "kn".index(axis)), layer.dequantized(dtype))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(layers(), DTYPES, st.data())
def test_rank_tensors(layer: Awq, dtype: torch.dtype, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, layer.k - 1))
    stop = data.draw(st.integers(start + 1, layer.k))
    weight = repack_awq(**layer.rows(start, stop).arguments(), dtype=dtype)
    assert_same(dequantize(weight), layer.dequantized(dtype)[start:stop])


@pytest.mark.parametrize("tp", [2, 4, 5, 20])
def test_first_column_inside_a_word(tp: int) -> None:
    """300 columns: ranks begin at 150, 75, 60 and 15 columns, with words of 8."""
    layer = random_awq(np.random.default_rng(1), 130, 300, group_size=64)
    for rank in range(tp):
        start, stop = Shard("n", rank, tp).bounds(300)
        weight = repack_awq(**layer.arguments(), shard=Shard("n", rank, tp))
        assert_same(dequantize(weight), layer.dequantized()[:, start:stop])


def test_the_order_of_columns_in_a_word() -> None:
    """0x76543210: nibble i holds i, so that column 1 is 4, and so on."""
    weight = repack_awq(
        torch.full((1, 1), 0x76543210, dtype=torch.int32),
        torch.ones(1, 8, dtype=torch.float16),
        torch.zeros(1, 1, dtype=torch.int32),
    )
    assert dequantize(weight).tolist() == [[0, 4, 1, 5, 2, 6, 3, 7]]


def test_one_nibble_is_one_weight() -> None:
    layer = random_awq(np.random.default_rng(2), 200, 70, group_size=64)
    before = dequantize(repack_awq(**layer.arguments(), shard=Shard("k", 1, 2)))
    # (row, word, nibble) and the column of that nibble.
    for row, word, nibble, column in [(100, 0, 0, 0), (150, 4, 4, 33), (199, 8, 6, 69)]:
        words = layer.qweight.view(np.uint32).copy()
        words[row, word] ^= np.uint32(1 << (4 * nibble))
        changed = replace(layer, qweight=words.view(np.int32))
        after = dequantize(repack_awq(**changed.arguments(), shard=Shard("k", 1, 2)))
        assert (after != before).nonzero().tolist() == [[row - 100, column]]


def layer_of(**changes: object) -> Awq:
    return random_awq(np.random.default_rng(3), 256, 64, **changes)


def test_the_dtype_comes_from_the_scales() -> None:
    tensors = layer_of().tensors()
    for given_dtype, dtype in [
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float16),
    ]:
        weight = repack_awq(**{**tensors, "scales": tensors["scales"].to(given_dtype)})
        assert weight.dtype == dtype


def test_symmetric_zeros_need_no_tensor() -> None:
    assert repack_awq(**layer_of(symmetric=True).arguments()).zeros is None
    layer = layer_of(symmetric=True, largest_scale=100.0)
    weight = repack_awq(**layer.arguments())
    assert weight.dequant == Dequant.WIDE
    assert_same(dequantize(weight), layer.dequantized())


def test_strided_tensors_and_parameters() -> None:
    layer = layer_of()
    tensors = {name: t.t().contiguous().t() for name, t in layer.tensors().items()}
    tensors["scales"] = torch.nn.Parameter(tensors["scales"])
    weight = repack_awq(**tensors)
    assert not weight.scales.requires_grad
    assert_same(dequantize(weight), layer.dequantized())


def test_inputs_are_left_alone() -> None:
    layer = layer_of()
    tensors = layer.tensors()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    weight = repack_awq(**tensors)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, before[name])
        tensor.zero_()
    assert_same(dequantize(weight), layer.dequantized())


def test_cut_and_own_tensors_give_the_same_words() -> None:
    layer = layer_of(group_size=48)
    for rank in range(4):
        start, stop = Shard("k", rank, 4).bounds(256)
        shard = repack_awq(**layer.arguments(), shard=Shard("k", rank, 4))
        own = repack_awq(**layer.rows(start, stop).arguments())
        for name, tensor in own.state_dict().items():
            assert torch.equal(shard.state_dict()[name], tensor), name


INTS = torch.zeros(256, 8, dtype=torch.int32)
SCALES = torch.ones(2, 64, dtype=torch.float16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 8}, "ValueError: repack_awq: bits: got 8, expected 4: AWQ defines no other"),
        ({"bits": 3}, "repack_awq: bits: got 3, expected 4 or 8"),
        ({"group_size": 0}, "group_size: got 0, expected a positive int, or -1"),
        ({"group_size": 32}, "scales: got 2 groups, expected 8, the groups of rows 0 to 255"),
        ({"group_size": -1}, "scales: got 2 groups, expected 1"),
        ({"qweight": INTS.long()}, "TypeError: repack_awq: qweight: got torch.int64"),
        ({"qweight": None}, "TypeError: repack_awq: qweight: got NoneType, expected a Tensor"),
        ({"qweight": INTS[:, 0]}, "qweight: got shape (256,), expected a non-empty 2-D"),
        ({"qweight": INTS[:0]}, "qweight: got shape (0, 8), expected a non-empty 2-D tensor"),
        (
            {"qweight": INTS.t()},
            "qweight: got shape (8, 256), expected (8, 8) = (k, ceil(n / 8)) for n = 64; "
            "check that the version is gemm",
        ),
        ({"qweight": INTS[:, :7]}, "qweight: got shape (256, 7), expected (256, 8)"),
        ({"qweight": INTS[:128]}, "scales: got 2 groups, expected 1, the groups of rows 0 to 127"),
        ({"scales": SCALES.double()}, "TypeError: repack_awq: scales: got torch.float64"),
        ({"scales": SCALES[:, :56]}, "qweight: got shape (256, 8), expected (256, 7)"),
        ({"scales": SCALES.to("meta")}, "scales: got meta, expected device cpu"),
        ({"scales": SCALES * float("inf")}, "scales: got inf at group 0, column 0"),
        ({"qzeros": None}, "TypeError: repack_awq: qzeros: got NoneType, expected a Tensor"),
        ({"qzeros": INTS[:1]}, "qzeros: got shape (1, 8), expected (2, 8) = (rows of scales,"),
        ({"qzeros": INTS[:2].to("meta")}, "qzeros: got meta, expected device cpu"),
        ({"shard": ("k", 0, 2)}, "TypeError: repack_awq: shard: got tuple"),
        ({"shard": Shard("k", 0, 2), "k_start": 128}, "k_start: got 128, expected 0, as shard"),
        ({"shard": Shard("n", 0, 3)}, "got 64 along axis 'n', expected a multiple of world_size"),
        ({"k_start": 64}, "scales: got 2 groups, expected 3, the groups of rows 64 to 319"),
        ({"dtype": torch.float32}, "TypeError: repack_awq: dtype: got torch.float32, expected"),
    ],
)
def test_refusals(changes: dict[str, object], message: str) -> None:
    arguments = {**layer_of().arguments(), **changes}
    with pytest.raises((ValueError, TypeError)) as error:
        repack_awq(**arguments)
    assert message in f"{error.type.__name__}: {error.value}"
