# SPDX-License-Identifier: Apache-2.0
"""repack_gptq against an independent reading of GPTQ (tests/oracle.py), bit for bit, and its
refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from padmarlin import Shard, dequantize, repack_gptq
from padmarlin.layout import Dequant
from tests.oracle import Gptq, assert_same, pack, random_gptq, unpack

GROUP_SIZES = [-1, 16, 24, 32, 64, 100, 128, 256]


@st.composite
def layers(draw: st.DrawFn) -> Gptq:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random_gptq(
        rng,
        draw(st.one_of(st.integers(1, 600), st.integers(1, 75).map(lambda words: 8 * words))),
        draw(st.sampled_from([1, 7, 64, 100, 1000])),
        bits=draw(st.sampled_from([4, 8])),
        group_size=draw(st.sampled_from(GROUP_SIZES)),
        symmetric=draw(st.booleans()),
        act_order=draw(st.booleans()),
        checkpoint_format=draw(st.sampled_from(["gptq", "gptq_v2"])),
        # Scales that call for each of the three ways to dequantize.
        largest_scale=draw(st.sampled_from([0.003, 0.02, 0.3, 100.0])),
    )


DTYPES = st.sampled_from([torch.float16, torch.bfloat16])


@settings(derandomize=True, deadline=None, max_examples=150)
@given(layers(), DTYPES)
def test_whole(layer: Gptq, dtype: torch.dtype) -> None:
    weight = repack_gptq(**layer.arguments(), dtype=dtype)
    assert (weight.k, weight.n) == (layer.k, layer.n)
    assert weight.dtype == dtype
    assert_same(dequantize(weight), layer.dequantized(dtype))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(layers(), DTYPES, st.integers(1, 4), st.sampled_from(["k", "n"]))
def test_shards_of_whole_tensors(layer: Gptq, dtype: torch.dtype, tp: int, axis: str) -> None:
    assume((layer.k if axis == "k" else layer.n) % tp == 0)
    shards = [Shard(axis, rank, tp) for rank in range(tp)]
    parts = [dequantize(repack_gptq(**layer.arguments(), dtype=dtype, shard=s)) for s in shards]
    assert_same(torch.cat(parts, "kn".index(axis)), layer.dequantized(dtype))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(layers(), DTYPES, st.data())
def test_rank_tensors(layer: Gptq, dtype: torch.dtype, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, layer.k - 1))
    stop = data.draw(st.integers(start + 1, layer.k))
    rank = layer.rows(start, stop)
    weight = repack_gptq(**rank.arguments(), dtype=dtype)
    assert_same(dequantize(weight), layer.dequantized(dtype)[start:stop])


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("tp", [2, 4])
def test_first_row_inside_a_word(tp: int, act_order: bool) -> None:
    layer = random_gptq(np.random.default_rng(3), 1032, 72, symmetric=False, act_order=act_order)
    whole = layer.dequantized()
    for rank in range(tp):
        start, stop = Shard("k", rank, tp).bounds(1032)
        shard = repack_gptq(**layer.arguments(), shard=Shard("k", rank, tp))
        own = repack_gptq(**layer.rows(start, stop).arguments())
        assert_same(dequantize(shard), whole[start:stop])
        assert torch.equal(shard.qweight, own.qweight)


@pytest.mark.parametrize("act_order", [False, True])
def test_partial_sums_add_up(act_order: bool) -> None:
    """Small integers and a scale of 1, so that every sum is exact in any order."""
    rng = np.random.default_rng(4)
    layer = random_gptq(rng, 384, 40, symmetric=False, act_order=act_order)
    layer = replace(layer, scales=np.ones_like(layer.scales))
    a = torch.from_numpy(rng.integers(-4, 5, (3, 384))).double()
    partial = [
        a[:, 96 * rank : 96 * (rank + 1)]
        @ dequantize(repack_gptq(**layer.arguments(), shard=Shard("k", rank, 4))).double()
        for rank in range(4)
    ]
    assert_same(sum(partial), a @ layer.dequantized().double())


def test_v1_borrow() -> None:
    """A zero point of 0 minus one borrows from the zero point beside it in the packed word."""
    zeros = np.array([[0, 0, 15, 8, 0, 7, 0, 0]])
    stored = (pack(zeros, 4, 1).view(np.uint32) - np.uint32(0x11111111)).view(np.int32)
    # Not 15 15 14 7 15 6 15 15, which each zero point minus one, modulo 16, would be.
    assert unpack(stored, 4, 1).tolist() == [[15, 14, 13, 7, 15, 5, 15, 14]]
    weight = repack_gptq(
        torch.zeros(2, 8, dtype=torch.int32),
        torch.ones(1, 8, dtype=torch.float16),
        torch.from_numpy(stored),
        group_size=16,
    )
    assert_same(dequantize(weight)[0], torch.from_numpy(-zeros[0]).half())


def test_one_nibble_is_one_weight() -> None:
    layer = random_gptq(np.random.default_rng(5), 200, 70, act_order=True, symmetric=False)
    before = dequantize(repack_gptq(**layer.arguments(), shard=Shard("k", 1, 2)))
    for row, column in [(100, 0), (150, 33), (199, 69)]:
        words = layer.qweight.view(np.uint32).copy()
        words[row // 8, column] ^= np.uint32(1 << (4 * (row % 8)))
        changed = replace(layer, qweight=words.view(np.int32))
        after = dequantize(repack_gptq(**changed.arguments(), shard=Shard("k", 1, 2)))
        assert (after != before).nonzero().tolist() == [[row - 100, column]]


def layer_of(**changes: object) -> Gptq:
    return random_gptq(np.random.default_rng(6), 256, 64, **changes)


def test_defaults_come_from_the_tensors() -> None:
    layer = layer_of(bits=8)
    tensors = layer.tensors()
    weight = repack_gptq(**tensors, bits=8)
    assert (weight.k, weight.n, weight.dtype) == (256, 64, torch.float16)
    tensors["scales"] = tensors["scales"].float()
    assert repack_gptq(**tensors, bits=8).dtype == torch.float16
    tensors["scales"] = tensors["scales"].bfloat16()
    assert repack_gptq(**tensors, bits=8).dtype == torch.bfloat16


def test_k_comes_from_g_idx() -> None:
    layer = random_gptq(np.random.default_rng(7), 203, 9, act_order=True)
    assert_same(dequantize(repack_gptq(**layer.tensors())), layer.dequantized())


def test_fp32_scales_are_converted_once() -> None:
    scales = np.random.default_rng(8).uniform(0.001, 0.02, (2, 64)).astype(np.float32)
    layer = replace(layer_of(), scales=scales)
    for dtype in (torch.float16, torch.bfloat16):
        weight = repack_gptq(**layer.arguments(), dtype=dtype)
        assert_same(dequantize(weight), layer.dequantized(dtype))


@pytest.mark.parametrize("sym", [None, True, False])
def test_symmetric_zeros_need_no_tensor(sym: bool | None) -> None:
    assert repack_gptq(**layer_of().arguments(), sym=sym).zeros is None


def test_no_zeros_are_symmetric_zeros() -> None:
    layer = layer_of()
    weight = repack_gptq(**{**layer.arguments(), "qzeros": None})
    assert weight.zeros is None
    assert_same(dequantize(weight), layer.dequantized())


def test_large_symmetric_scales() -> None:
    layer = layer_of(largest_scale=100.0)
    weight = repack_gptq(**layer.arguments())
    assert weight.dequant == Dequant.WIDE
    assert_same(dequantize(weight), layer.dequantized())


def test_trivial_g_idx_is_recognised() -> None:
    layer = layer_of()
    g_idx = torch.arange(256) // 128
    weight = repack_gptq(**layer.arguments(), g_idx=g_idx)
    assert weight.columns is None
    assert torch.equal(weight.qweight, repack_gptq(**layer.arguments()).qweight)
    assert repack_gptq(**layer_of(act_order=True).arguments()).columns is not None


def test_a_rank_with_a_trivial_g_idx_may_have_whole_tables() -> None:
    layer = layer_of(group_size=64, symmetric=False)
    rank = layer.rows(160, 256)
    g_idx = torch.arange(160, 256) // 64
    own = repack_gptq(**rank.arguments(), g_idx=g_idx)
    tables = {name: tensor for name, tensor in layer.tensors().items() if name != "qweight"}
    whole = repack_gptq(**{**rank.arguments(), **tables}, g_idx=g_idx)
    for weight in (own, whole):
        assert_same(dequantize(weight), layer.dequantized()[160:256])


def test_strided_tensors() -> None:
    layer = layer_of(symmetric=False)
    arguments = layer.arguments()
    for name in ("qweight", "scales", "qzeros"):
        arguments[name] = arguments[name].t().contiguous().t()  # type: ignore[union-attr]
    assert_same(dequantize(repack_gptq(**arguments)), layer.dequantized())


def test_inputs_are_left_alone() -> None:
    layer = layer_of(symmetric=False, act_order=True)
    tensors = layer.tensors()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    weight = repack_gptq(**tensors)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, before[name])
        tensor.zero_()
    assert_same(dequantize(weight), layer.dequantized())


def test_parameters_are_taken() -> None:
    tensors = layer_of().tensors()
    tensors["scales"] = torch.nn.Parameter(tensors["scales"])
    assert not repack_gptq(**tensors).scales.requires_grad


def refused(**changes: object) -> str:
    """The message that repack_gptq gives for a good (256, 64) layer with `changes`."""
    arguments = {**layer_of().arguments(), "k": None, **changes}
    with pytest.raises((ValueError, TypeError)) as error:
        repack_gptq(**arguments)
    return f"{error.type.__name__}: {error.value}"


INTS = torch.zeros(32, 64, dtype=torch.int32)
SCALES = torch.ones(2, 64, dtype=torch.float16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 3}, "ValueError: repack_gptq: bits: got 3, expected 4 or 8"),
        ({"bits": True}, "ValueError: repack_gptq: bits: got True"),
        (
            {"bits": 8},
            "qzeros: got shape (2, 8), expected (2, 16) = (rows of scales, ceil(n * bits",
        ),
        ({"group_size": 0}, "repack_gptq: group_size: got 0, expected a positive int, or -1"),
        ({"group_size": 32}, "scales: got 2 groups, expected 8, the groups of rows 0 to 255"),
        ({"group_size": -1}, "scales: got 2 groups, expected 1, the groups of rows 0 to 255"),
        ({"checkpoint_format": "v2"}, "checkpoint_format: got 'v2', expected 'gptq' or 'gptq_v2'"),
        ({"k": 240}, "qweight: got shape (32, 64), expected (30, 64)"),
        ({"k": 0}, "k: got 0, expected an int from 1"),
        ({"qweight": INTS.float()}, "TypeError: repack_gptq: qweight: got torch.float32"),
        ({"qweight": None}, "TypeError: repack_gptq: qweight: got NoneType, expected a Tensor"),
        ({"qweight": INTS[0]}, "qweight: got shape (64,), expected a non-empty 2-D tensor"),
        ({"qweight": INTS[:0]}, "qweight: got shape (0, 64), expected a non-empty 2-D tensor"),
        ({"qweight": INTS[:, :63]}, "qweight: got shape (32, 63), expected (32, 64)"),
        ({"qweight": INTS[:31], "k": 256}, "qweight: got shape (31, 64), expected (32, 64)"),
        ({"qweight": INTS[:8]}, "scales: got 2 groups, expected 1, the groups of rows 0 to 63"),
        ({"scales": SCALES.int()}, "TypeError: repack_gptq: scales: got torch.int32, expected"),
        ({"scales": SCALES.double()}, "TypeError: repack_gptq: scales: got torch.float64"),
        ({"scales": SCALES[:1], "qzeros": None}, "scales: got 1 groups, expected 2"),
        ({"scales": SCALES.to("meta")}, "scales: got meta, expected device cpu"),
        ({"qzeros": INTS[:2, :8].to("meta")}, "qzeros: got meta, expected device cpu"),
        ({"qzeros": INTS[:2, :7]}, "qzeros: got shape (2, 7), expected (2, 8)"),
        ({"qzeros": INTS[:1, :8]}, "qzeros: got shape (1, 8), expected (2, 8)"),
        ({"qzeros": INTS[:2, :8].long()}, "TypeError: repack_gptq: qzeros: got torch.int64"),
        ({"qzeros": None, "sym": False}, "qzeros: got None, expected a Tensor, as sym=False"),
        (
            {"checkpoint_format": "gptq_v2", "sym": True},
            "qzeros: got zero point 7 at group 0, column 0, expected 8 everywhere, as sym=True; "
            "pass sym=False or None, or check checkpoint_format",
        ),
        ({"sym": 1}, "TypeError: repack_gptq: sym: got 1, expected True, False or None"),
        ({"g_idx": torch.zeros(256)}, "TypeError: repack_gptq: g_idx: got torch.float32"),
        ({"g_idx": torch.zeros(250, dtype=torch.int32), "k": 256}, "g_idx: got shape (250,)"),
        ({"g_idx": torch.zeros(2, 128, dtype=torch.int32)}, "g_idx: got shape (2, 128)"),
        ({"g_idx": torch.arange(256) - 1}, "g_idx: got -1 at row 0, expected a group number >= 0"),
        ({"g_idx": torch.arange(256)}, "g_idx: got group 255, expected at most 1, as scales has 2"),
        (
            {"g_idx": torch.arange(256).flip(0) // 128, "k_start": 1024},
            "expected at least 10: with",
        ),
        ({"shard": ("k", 0, 2)}, "TypeError: repack_gptq: shard: got tuple, expected a padmarlin"),
        ({"shard": Shard("k", 0, 2), "k_start": 128}, "k_start: got 128, expected 0, as shard"),
        ({"shard": Shard("k", 0, 3)}, "got 256 along axis 'k', expected a multiple of world_size"),
        ({"shard": Shard("n", 0, 3)}, "got 64 along axis 'n', expected a multiple of world_size"),
        ({"k_start": -1}, "k_start: got -1, expected an int from 0"),
        ({"k_start": 64}, "scales: got 2 groups, expected 3, the groups of rows 64 to 319"),
        ({"dtype": np.zeros(2)}, "TypeError: repack_gptq: dtype: got array([0., 0.]), expected"),
        ({"dtype": torch.float32}, "TypeError: repack_gptq: dtype: got torch.float32, expected"),
    ],
)
def test_refusals(changes: dict[str, object], message: str) -> None:
    assert message in refused(**changes)


def scales_with(value: float, dtype: torch.dtype) -> Tensor:
    scales = torch.ones(2, 64, dtype=dtype)
    scales[1, 40] = value
    return scales


@pytest.mark.parametrize(
    ("value", "dtype", "remedy"),
    [
        (1e6, torch.float16, "pass dtype=torch.bfloat16, of wider range"),
        (1e-9, torch.float16, "pass dtype=torch.bfloat16, of wider range"),
        (2.0**-140, torch.bfloat16, "quantize this layer again"),
        (float("nan"), torch.float16, "quantize this layer again"),
        (float("-inf"), torch.float16, "quantize this layer again"),
    ],
)
def test_a_scale_that_the_dtype_cannot_hold(value: float, dtype: torch.dtype, remedy: str) -> None:
    message = refused(scales=scales_with(value, torch.float32), dtype=dtype)
    assert f"scales: got {value:g} at group 1, column 40, expected 0 or a size from" in message
    assert str(dtype) in message
    assert message.endswith(remedy)
    cut = refused(scales=scales_with(value, torch.float32), dtype=dtype, shard=Shard("k", 1, 2))
    assert "at group 1, column 40" in cut
    cut = refused(scales=scales_with(value, torch.float32), dtype=dtype, shard=Shard("n", 1, 2))
    assert "at group 1, column 40" in cut


@pytest.mark.parametrize("value", [0.0, 2.0**-24, 65504.0, -65504.0])
def test_the_ends_of_fp16_are_held(value: float) -> None:
    layer = replace(layer_of(), scales=scales_with(value, torch.float32).numpy())
    # The largest scales overflow when multiplied by the codes, as they do in fp16 anywhere.
    assert_same(dequantize(repack_gptq(**layer.arguments())), layer.dequantized())


@pytest.mark.parametrize("name", ["qweight", "scales", "qzeros", "g_idx"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t, _: t.to_sparse(),
            "a tensor of layout torch.sparse_coo, expected a dense tensor",
        ),
        (lambda t, _: torch.nested.nested_tensor([t]), "a nested tensor, expected a dense"),
        (lambda t, fake: fake.from_tensor(t), "a FakeTensor, expected a tensor with data"),
    ],
    ids=["sparse", "nested", "fake"],
)
def test_tensors_without_plain_data(name: str, change: Any, message: str) -> None:
    layer = random_gptq(np.random.default_rng(0), 64, 16, group_size=16, act_order=True)
    arguments = layer.arguments()
    arguments[name] = change(arguments[name], FakeTensorMode())
    with pytest.raises(TypeError, match=f"repack_gptq: {name}: got {message}"):
        repack_gptq(**arguments)
