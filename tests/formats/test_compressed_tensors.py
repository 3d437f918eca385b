# SPDX-License-Identifier: Apache-2.0
"""repack_compressed_tensors against an independent reading of the format (tests/oracle.py), bit for
bit, and its refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from padmarlin import Shard, dequantize, repack_compressed_tensors, repack_gptq
from padmarlin.layout import Dequant
from tests.oracle import CompressedTensors, assert_same, random_compressed_tensors, random_gptq


@st.composite
def layers(draw: st.DrawFn) -> CompressedTensors:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random_compressed_tensors(
        rng,
        draw(st.one_of(st.integers(1, 600), st.integers(1, 75).map(lambda words: 8 * words))),
        draw(st.sampled_from([1, 7, 64, 100, 1000])),
        bits=draw(st.sampled_from([4, 8])),
        group_size=draw(st.sampled_from([-1, 16, 24, 32, 64, 100, 128, 256])),
        symmetric=draw(st.booleans()),
        act_order=draw(st.booleans()),
        # Scales that call for each of the three ways to dequantize.
        largest_scale=draw(st.sampled_from([0.003, 0.02, 0.3, 100.0])),
    )


DTYPES = st.sampled_from([torch.float16, torch.bfloat16])


@settings(derandomize=True, deadline=None, max_examples=100)
@given(layers(), DTYPES)
def test_whole(layer: CompressedTensors, dtype: torch.dtype) -> None:
    weight = repack_compressed_tensors(**layer.arguments(), dtype=dtype)
    assert (weight.k, weight.n) == (layer.k, layer.n)
    assert weight.dtype == dtype
    assert_same(dequantize(weight), layer.dequantized(dtype))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(layers(), DTYPES, st.integers(1, 4), st.sampled_from(["k", "n"]))
def test_shards_of_whole_tensors(
    layer: CompressedTensors, dtype: torch.dtype, tp: int, axis: str
) -> None:
    assume((layer.k if axis == "k" else layer.n) % tp == 0)
    parts = [
        dequantize(
            repack_compressed_tensors(**layer.arguments(), dtype=dtype, shard=Shard(axis, rank, tp))
        )
        for rank in range(tp)
    ]
    assert_same(torch.cat(parts, "kn".index(axis)), layer.dequantized(dtype))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(layers(), DTYPES, st.data())
def test_rank_tensors(layer: CompressedTensors, dtype: torch.dtype, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, layer.k - 1))
    stop = data.draw(st.integers(start + 1, layer.k))
    weight = repack_compressed_tensors(**layer.rows(start, stop).arguments(), dtype=dtype)
    assert_same(dequantize(weight), layer.dequantized(dtype)[start:stop])


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("tp", [2, 4])
def test_first_row_inside_a_word(tp: int, act_order: bool) -> None:
    layer = random_compressed_tensors(
        np.random.default_rng(1), 1032, 72, symmetric=False, act_order=act_order
    )
    for rank in range(tp):
        start, stop = Shard("k", rank, tp).bounds(1032)
        shard = repack_compressed_tensors(**layer.arguments(), shard=Shard("k", rank, tp))
        own = repack_compressed_tensors(**layer.rows(start, stop).arguments())
        assert_same(dequantize(shard), layer.dequantized()[start:stop])
        assert torch.equal(shard.qweight, own.qweight)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("act_order", [False, True])
def test_the_same_weight_as_gptq_gives_the_same_tensors(bits: int, act_order: bool) -> None:
    gptq = random_gptq(
        np.random.default_rng(2),
        300,
        70,
        bits=bits,
        group_size=64,
        symmetric=False,
        act_order=act_order,
        checkpoint_format="gptq_v2",
    )
    tensors = gptq.tensors()
    got = repack_compressed_tensors(
        tensors["qweight"].t().contiguous(),
        tensors["scales"].t().contiguous(),
        tensors["qzeros"].t().contiguous(),
        tensors.get("g_idx"),
        weight_shape=(70, 300),
        bits=bits,
        group_size=64,
        sym=False,
    )
    expected = repack_gptq(**gptq.arguments()).state_dict()
    for name, tensor in got.state_dict().items():
        assert torch.equal(expected[name], tensor), name


def test_one_nibble_is_one_weight() -> None:
    layer = random_compressed_tensors(
        np.random.default_rng(3), 200, 70, act_order=True, symmetric=False
    )
    before = dequantize(repack_compressed_tensors(**layer.arguments(), shard=Shard("k", 1, 2)))
    for row, column in [(100, 0), (150, 33), (199, 69)]:
        words = layer.weight_packed.view(np.uint32).copy()
        words[column, row // 8] ^= np.uint32(1 << (4 * (row % 8)))
        changed = replace(layer, weight_packed=words.view(np.int32))
        after = dequantize(repack_compressed_tensors(**changed.arguments(), shard=Shard("k", 1, 2)))
        assert (after != before).nonzero().tolist() == [[row - 100, column]]


def layer_of(**changes: object) -> CompressedTensors:
    return random_compressed_tensors(np.random.default_rng(4), 256, 64, **changes)


def test_the_dtype_comes_from_the_scales() -> None:
    tensors = layer_of().tensors()
    for given_dtype, dtype in [
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float16),
    ]:
        scale = tensors["weight_scale"].to(given_dtype)
        assert repack_compressed_tensors(**{**tensors, "weight_scale": scale}).dtype == dtype


@pytest.mark.parametrize(
    "shape",
    [(64, 256), [64, 256], torch.Size([64, 256]), torch.tensor([64, 256], dtype=torch.int32)],
    ids=lambda shape: type(shape).__name__,
)
def test_weight_shape_is_a_tensor_or_a_sequence(shape: object) -> None:
    layer = layer_of()
    weight = repack_compressed_tensors(**{**layer.arguments(), "weight_shape": shape})
    assert_same(dequantize(weight), layer.dequantized())


@pytest.mark.parametrize("sym", [None, True, False])
def test_symmetric_zeros_need_no_tensor(sym: bool | None) -> None:
    layer = layer_of()
    zeros = torch.full((8, 2), 0x88888888 - 2**32, dtype=torch.int32)
    arguments = {**layer.arguments(), "weight_zero_point": zeros, "sym": sym}
    weight = repack_compressed_tensors(**arguments)
    assert weight.zeros is None
    assert_same(dequantize(weight), layer.dequantized())


def test_large_symmetric_scales() -> None:
    layer = layer_of(largest_scale=100.0)
    weight = repack_compressed_tensors(**layer.arguments())
    assert weight.dequant == Dequant.WIDE
    assert_same(dequantize(weight), layer.dequantized())


@pytest.mark.parametrize("g_idx", [torch.arange(256) // 128, torch.full((256,), -1)])
def test_a_g_idx_that_says_nothing_is_recognised(g_idx: torch.Tensor) -> None:
    """In order, or all -1, which compressed-tensors leaves where nothing was reordered."""
    layer = layer_of()
    weight = repack_compressed_tensors(**layer.arguments(), weight_g_idx=g_idx)
    assert weight.columns is None
    assert_same(dequantize(weight), layer.dequantized())


def test_strided_tensors_and_parameters() -> None:
    layer = layer_of(symmetric=False)
    arguments = layer.arguments()
    for name in ("weight_packed", "weight_scale", "weight_zero_point"):
        arguments[name] = arguments[name].t().contiguous().t()  # type: ignore[attr-defined]
    arguments["weight_scale"] = torch.nn.Parameter(arguments["weight_scale"])  # type: ignore[arg-type]
    weight = repack_compressed_tensors(**arguments)
    assert not weight.scales.requires_grad
    assert_same(dequantize(weight), layer.dequantized())


def test_inputs_are_left_alone() -> None:
    layer = layer_of(symmetric=False, act_order=True)
    arguments = layer.arguments()
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    before = [tensor.clone() for tensor in tensors]
    weight = repack_compressed_tensors(**arguments)
    for tensor, copy in zip(tensors, before, strict=True):
        assert torch.equal(tensor, copy)
        tensor.zero_()
    assert_same(dequantize(weight), layer.dequantized())


INTS = torch.zeros(64, 32, dtype=torch.int32)
SCALES = torch.ones(64, 2, dtype=torch.float16)
ORDER = torch.arange(256).flip(0) // 128


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 3}, "ValueError: repack_compressed_tensors: bits: got 3, expected 4 or 8"),
        ({"bits": 8}, "weight_packed: got shape (64, 32), expected (64, 64) = (n, ceil(k * bits"),
        ({"group_size": 0}, "group_size: got 0, expected a positive int, or -1"),
        ({"group_size": 32}, "weight_scale: got 2 groups, expected 8, the groups of rows 0 to 255"),
        ({"group_size": -1}, "weight_scale: got 2 groups, expected 1"),
        ({"weight_shape": None}, "weight_shape: got None, expected (n, k)"),
        ({"weight_shape": (64,)}, "weight_shape: got (64,), expected (n, k)"),
        ({"weight_shape": torch.ones(3, dtype=torch.int64)}, "weight_shape: got tensor([1, 1, 1])"),
        ({"weight_shape": torch.ones(2)}, "TypeError: repack_compressed_tensors: weight_shape"),
        ({"weight_shape": (64, 0)}, "weight_shape: got 0, expected an int from 1"),
        ({"weight_shape": (64, 256.0)}, "TypeError: repack_compressed_tensors: weight_shape: got"),
        ({"weight_shape": (256, 64)}, "weight_packed: got shape (64, 32), expected (256, 8)"),
        ({"weight_shape": (64, 240)}, "expected (64, 30) = (n, ceil(k * bits / 32)) for n = 64"),
        ({"weight_packed": INTS.long()}, "weight_packed: got torch.int64, expected torch.int32"),
        ({"weight_packed": INTS[None]}, "weight_packed: got shape (1, 64, 32), expected a non-em"),
        ({"weight_scale": SCALES.double()}, "weight_scale: got torch.float64"),
        ({"weight_scale": SCALES.t()}, "weight_scale: got shape (2, 64), expected (64, 64)"),
        ({"weight_scale": SCALES[:63]}, "weight_scale: got shape (63, 2), expected (64, 2)"),
        ({"weight_scale": SCALES[:, :1]}, "weight_scale: got 1 groups, expected 2"),
        ({"weight_scale": SCALES.to("meta")}, "weight_scale: got meta, expected device cpu"),
        ({"weight_scale": SCALES * float("nan")}, "weight_scale: got nan at group 0, column 0"),
        ({"weight_zero_point": INTS[:, :2]}, "weight_zero_point: got shape (64, 2), expected (8,"),
        ({"weight_zero_point": INTS[:8, :2].char()}, "weight_zero_point: got torch.int8, expected"),
        (
            {"weight_zero_point": INTS[:8, :2]},
            "weight_zero_point: got zero point 0 at group 0, column 0, expected 8 everywhere, as "
            "sym=True; pass sym=False or None",
        ),
        ({"sym": False}, "weight_zero_point: got None, expected a Tensor, as sym=False"),
        ({"sym": "no"}, "TypeError: repack_compressed_tensors: sym: got 'no', expected True, Fal"),
        ({"weight_g_idx": torch.zeros(256)}, "weight_g_idx: got torch.float32, expected"),
        ({"weight_g_idx": [0] * 256}, "weight_g_idx: got list, expected an int32 or int64 tensor"),
        ({"weight_g_idx": ORDER[:-1]}, "weight_g_idx: got shape (255,), expected (256,)"),
        ({"weight_g_idx": ORDER - 1}, "weight_g_idx: got -1 at row 128, expected a group number"),
        ({"weight_g_idx": ORDER + 1}, "weight_g_idx: got group 2, expected at most 1, as weight_s"),
        ({"weight_g_idx": ORDER, "k_start": 1024}, "weight_scale: got 2 groups, expected at least"),
        ({"shard": ("k", 0, 2)}, "TypeError: repack_compressed_tensors: shard: got tuple"),
        ({"shard": Shard("k", 0, 2), "k_start": 128}, "k_start: got 128, expected 0, as shard"),
        ({"shard": Shard("n", 0, 3)}, "got 64 along axis 'n', expected a multiple of world_size"),
        ({"k_start": 64}, "weight_scale: got 2 groups, expected 3, the groups of rows 64 to 319"),
        ({"dtype": torch.float32}, "dtype: got torch.float32, expected"),
    ],
)
def test_refusals(changes: dict[str, object], message: str) -> None:
    arguments = {**layer_of().arguments(), **changes}
    with pytest.raises((ValueError, TypeError)) as error:
        repack_compressed_tensors(**arguments)
    assert message in f"{error.type.__name__}: {error.value}"
