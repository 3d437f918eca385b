# SPDX-License-Identifier: Apache-2.0
"""A rank's rows and columns of a checkpoint's tensors, repacked, against tests/oracle.py bit for
bit: what the vLLM plugin loads, without vLLM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padmarlin import dequantize
from padmarlin.integrations.vllm.reading import Coding, Rank
from padmarlin.integrations.vllm.words import cut_words, pack
from padmarlin.packing import Packing
from tests import oracle
from tests.oracle import Layer, assert_same

CPU = torch.device("cpu")
NAMES = {
    Packing.GPTQ: ("qweight", "scales", "qzeros", "g_idx"),
    Packing.AWQ: ("qweight", "scales", "qzeros", "g_idx"),
    Packing.COMPRESSED_TENSORS: (
        "weight_packed",
        "weight_scale",
        "weight_zero_point",
        "weight_g_idx",
    ),
}


def random_layer(
    packing: Packing,
    seed: int,
    k: int,
    n: int,
    bits: int,
    group_size: int,
    symmetric: bool,
    act_order: bool,
    v2: bool,
) -> Layer:
    rng = np.random.default_rng(seed)
    common: dict[str, Any] = {"group_size": group_size, "symmetric": symmetric}
    if packing == Packing.AWQ:
        return oracle.random_awq(rng, k, n, **common)
    common |= {"bits": bits, "act_order": act_order}
    if packing == Packing.GPTQ:
        written = "gptq_v2" if v2 else "gptq"
        return oracle.random_gptq(rng, k, n, checkpoint_format=written, **common)
    return oracle.random_compressed_tensors(rng, k, n, **common)


@pytest.mark.parametrize("packing", list(Packing))
@given(data=st.data())
def test_rank_of_a_layer(packing: Packing, data: st.DataObject) -> None:
    tp = data.draw(st.sampled_from([1, 2, 3, 4]), "tp")
    k = tp * data.draw(st.integers(1, 130), "rows of a rank")
    n = data.draw(st.integers(1, 70), "n")
    bits = 4 if packing == Packing.AWQ else data.draw(st.sampled_from([4, 8]), "bits")
    group_size = data.draw(st.sampled_from([-1, 8, 16, 24, 32, 100, 128]), "group_size")
    act_order = packing != Packing.AWQ and data.draw(st.booleans(), "act_order")
    symmetric = data.draw(st.booleans(), "symmetric")
    layer = random_layer(
        packing,
        data.draw(st.integers(0, 2**31), "seed"),
        k,
        n,
        bits,
        group_size,
        symmetric,
        act_order,
        data.draw(st.booleans(), "v2"),
    )
    first = data.draw(st.integers(0, n - 1), "first column")
    columns = (first, data.draw(st.integers(first + 1, n), "last column"))
    coding = Coding(
        packing,
        bits,
        group_size,
        symmetric,
        act_order,
        getattr(layer, "checkpoint_format", "gptq_v2"),
    )
    whole = layer.dequantized()
    for number in range(tp):
        rank = Rank("layer", coding, full_k=k, k=k // tp, k_start=number * (k // tp))
        got = dequantize(loaded_weight(rank, layer, columns))
        assert_same(got, whole[slice(*rank.rows), slice(*columns)])


def loaded_weight(rank: Rank, layer: Layer, columns: tuple[int, int]):
    """As the plugin's parameters and method do it."""
    tensors = layer.tensors()
    words, scales, zeros, g_idx = NAMES[rank.coding.packing]
    kept = rank.empty(columns[1] - columns[0], 1)
    kept["words"].copy_(rank.read_words(tensors[words], columns, CPU))
    kept["scales"].copy_(rank.read_scales(tensors[scales], columns, CPU))
    if zeros in tensors:
        kept["zeros"].copy_(rank.read_zeros(tensors[zeros], columns, CPU))
    groups = None
    if g_idx in tensors:
        kept["g_idx"][:] = rank.read_g_idx(tensors[g_idx], CPU)
        groups = kept["g_idx"][0]
    return rank.repack(kept["words"], kept["scales"], kept["zeros"], groups, torch.float16)


@given(
    st.sampled_from([4, 8]),
    st.integers(1, 70),
    st.integers(1, 5),
    st.integers(0, 1),
    st.integers(0, 2**31),
)
def test_pack(bits: int, length: int, others: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, (length, others) if dim == 0 else (others, length))
    wanted = torch.from_numpy(oracle.pack(codes, bits, dim))
    assert_same(pack(torch.from_numpy(codes), bits, dim), wanted)


def test_words_of_a_large_awq_layer_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from padmarlin.integrations.vllm import words

    monkeypatch.setattr(words, "_PIECE", 200)
    layer = oracle.random_awq(np.random.default_rng(0), 100, 24)
    found = cut_words(layer.tensors()["qweight"], Packing.AWQ, (3, 98), (4, 21), 4)
    assert_same(found, torch.from_numpy(oracle.pack(layer.codes()[3:98, 4:21], 4, 0)))


def rank_of(layer: oracle.Gptq, k: int) -> Rank:
    coding = Coding(Packing.GPTQ, 4, 128, True, False, "gptq")
    return Rank("model.layers.0.mlp.down_proj", coding, full_k=k, k=k, k_start=0)


def test_tensors_of_another_size_are_refused() -> None:
    layer = oracle.random_gptq(np.random.default_rng(0), 256, 16)
    rank, tensors = rank_of(layer, 512), layer.tensors()
    for name, read in (
        ("qweight", rank.read_words),
        ("scales", rank.read_scales),
        ("qzeros", rank.read_zeros),
    ):
        with pytest.raises(
            ValueError, match=r"of model.layers.0.mlp.down_proj: got shape .* K = 512"
        ):
            read(tensors[name], (0, 16), CPU)
    with pytest.raises(ValueError, match="g_idx of model.layers.0"):
        rank.read_g_idx(torch.zeros(256, dtype=torch.int32), CPU)


def test_columns_that_are_not_there_are_refused() -> None:
    layer = oracle.random_gptq(np.random.default_rng(0), 256, 16)
    with pytest.raises(ValueError, match="columns up to 24"):
        rank_of(layer, 256).read_words(layer.tensors()["qweight"], (8, 24), CPU)


@pytest.mark.parametrize(
    "packing, said",
    [
        (Packing.GPTQ, "sym is true"),
        (Packing.AWQ, "zero_point is false"),
        (Packing.COMPRESSED_TENSORS, "symmetric is true"),
    ],
)
def test_zero_points_of_a_symmetric_layer_must_be_symmetric(packing: Packing, said: str) -> None:
    layer = random_layer(packing, 0, 256, 16, 4, 128, False, False, True)
    coding = Coding(packing, 4, 128, sym=True, act_order=False)
    rank = Rank("model.layers.0.mlp.down_proj", coding, full_k=256, k=256, k_start=0)
    with pytest.raises(ValueError, match=f"zero points of model.layers.0.*expected 8.*as {said}"):
        loaded_weight(rank, layer, (0, 16))
