# SPDX-License-Identifier: Apache-2.0
"""Act-order folded into the producer: the same MLP without a gather, at any number of ranks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import silu

import padmarlin
from padmarlin.convert import fold_checkpoint
from padmarlin.nn import QuantLinear, QuantMLP, load_folded_pair
from padmarlin.nn.unpacked import Unpacked
from padmarlin.partition import plain_padding
from tests.checkpoint_files import (
    COMPRESSED_TENSORS,
    REAL,
    gptq_config,
    random_layer,
    tensors_of,
    write_checkpoint,
)
from tests.nn.ranks import on_ranks

MLP = "model.layers.0.mlp"
[ACT_ORDER] = [path for path in REAL if "desc" in path.name]


@pytest.fixture(autouse=True)
def _inference():
    with torch.no_grad():
        yield


def reference(directory: Path, prefix: str, x: Tensor, activation=silu) -> Tensor:
    """The MLP in float64, from the checkpoint's weights."""

    def linear(name: str, x: Tensor) -> Tensor:
        layer = QuantLinear.from_checkpoint(directory, f"{prefix}.{name}", dtype=torch.float16)
        y = x @ padmarlin.dequantize(layer.weight).double()
        return y if layer.bias is None else y + layer.bias.double()

    x = x.double()
    return linear("down_proj", activation(linear("gate_proj", x)) * linear("up_proj", x))


def check(directory: Path, prefix: str = MLP, *, folded: bool, **options) -> QuantMLP:
    mlp = QuantMLP.from_checkpoint(directory, prefix, dtype=torch.float16, **options)
    x = torch.randn(3, mlp.gate_up.k, generator=torch.Generator().manual_seed(2)).half()
    want = reference(directory, prefix, x)
    error = float((mlp(x).double() - want).norm() / want.norm())
    # Rounded to fp16: gate, up, their activation and product, each rank's result and every sum.
    assert error < 3e-3, (directory.name, dist.is_initialized() and dist.get_rank(), error)
    assert (mlp.down.columns is None) == folded
    return mlp


@pytest.mark.parametrize("checkpoint", REAL, ids=lambda path: path.name)
def test_one_rank(checkpoint):
    mlp = check(checkpoint, folded=True)
    k, group_size = mlp.down.k, mlp.down.group_size
    assert (mlp.down._front_pad, mlp.down.weight.padded_k) == plain_padding(k, group_size)


def several(rank: int, made: Path) -> None:
    for checkpoint in REAL:
        mlp = check(checkpoint, folded=True)
        k, group_size = mlp.down.k, mlp.down.group_size
        plain = plain_padding(k, group_size, rank * k)
        assert (mlp.down._front_pad, mlp.down.weight.padded_k) == plain, (checkpoint.name, rank)
    # Each row of the consumer is on exactly one rank.
    unfolded = padmarlin.load_weight(ACT_ORDER, f"{MLP}.down_proj")
    mlp = QuantMLP.from_checkpoint(ACT_ORDER, MLP)
    total = padmarlin.dequantize(mlp.down.weight).double().sum(0)
    dist.all_reduce(total)
    want = padmarlin.dequantize(unfolded).double().sum(0)
    assert torch.allclose(total, want, rtol=0, atol=1e-9)
    check(made, "mlp", folded=True)


@pytest.mark.parametrize("size", [2, 4])
def test_several_ranks(size, tmp_path):
    on_ranks(size, several, made_mlp(tmp_path, 336, group_size=48))


def made_mlp(directory: Path, width: int, *, group_size: int, **down) -> Path:
    common = {"bits": 4, "group_size": group_size}
    layers = {
        "mlp.gate_proj": random_layer(96, width, **common, act_order=True, seed=1),
        "mlp.up_proj": random_layer(96, width, **common, act_order=True, seed=1),
        "mlp.down_proj": random_layer(width, 96, **common, act_order=True, seed=3) | down,
    }
    for name, layer in layers.items():
        layer["scales"] = layer["scales"] / 4
        width_of = layer["scales"].shape[1]
        generator = torch.Generator().manual_seed(len(name))
        layer["bias"] = torch.randn(width_of, generator=generator).half()
    config = gptq_config(group_size=group_size, desc_act=True)
    return write_checkpoint(directory, layers, config)


def test_a_ragged_last_group(tmp_path):
    check(made_mlp(tmp_path, 200, group_size=64), "mlp", folded=True)


def test_groups_of_uneven_size_are_left_as_they_are(tmp_path):
    g_idx = torch.randperm(200, generator=torch.Generator().manual_seed(4)) % 3
    directory = made_mlp(tmp_path, 200, group_size=64, g_idx=(g_idx + 1).clamp(max=3).int())
    check(directory, "mlp", folded=False)


def test_groups_that_are_no_multiple_of_16_keep_a_table(tmp_path):
    mlp = check(made_mlp(tmp_path, 200, group_size=40), "mlp", folded=False)
    columns = mlp.down.columns
    assert columns is not None  # padding inside, but in order
    present = columns[columns >= 0]
    assert torch.equal(present, torch.arange(200, dtype=torch.int32))


def test_compressed_tensors_with_act_order(tmp_path):
    """The real layer, its rows in another order and its weight_g_idx saying so."""
    layers = {
        name: tensors_of(COMPRESSED_TENSORS, f"{MLP}.{name}")
        for name in ("gate_proj", "up_proj", "down_proj")
    }
    down = layers["down_proj"]
    order = torch.randperm(384, generator=torch.Generator().manual_seed(6))
    down["weight_g_idx"] = (order // 128).int()
    config = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {
            "group_0": {
                "targets": ["re:.*down_proj"],
                "weights": {"num_bits": 4, "group_size": 128, "actorder": "group"},
            },
            "group_1": {
                "targets": ["Linear"],
                "weights": {"num_bits": 4, "group_size": 128},
            },
        },
    }
    named = {f"mlp.{name}": tensors for name, tensors in layers.items()}
    check(write_checkpoint(tmp_path, named, config), "mlp", folded=True)


def test_a_producer_of_another_width(tmp_path):
    directory = made_mlp(tmp_path, 192, group_size=64)
    expected = "mlp.down_proj: got n = 96, expected 192, the rows of the layer that reads it"
    with pytest.raises(ValueError, match=re.escape(expected)):
        load_folded_pair(directory, ["mlp.gate_proj", "mlp.down_proj"], "mlp.down_proj")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((5, MLP), TypeError, "checkpoint_dir: got int"),
        (("nowhere", MLP), ValueError, "checkpoint_dir: got 'nowhere'"),
        ((REAL[0], MLP, ("gate_proj", "up_proj")), ValueError, "the names of gate, up and down"),
        ((REAL[0], MLP, "gate_proj"), TypeError, "names: got 'gate_proj'"),
        ((REAL[0], "model.layers.7.mlp"), ValueError, "got 'model.layers.7.mlp.gate_proj'"),
    ],
)
def test_arguments_that_do_not_fit(arguments, kind, message):
    directory, prefix, *names = arguments
    with pytest.raises(kind, match=re.escape(message)):
        QuantMLP.from_checkpoint(directory, prefix, **({"names": names[0]} if names else {}))


def test_only_the_part_of_a_rank_is_read_without_act_order(monkeypatch):
    seen = []
    load = padmarlin.checkpoint.load.load_weight

    def counted(directory, name, **options):
        seen.append((name, options.get("shard")))
        return load(directory, name, **options)

    for module in ("fold", "parallel", "merged"):
        monkeypatch.setattr(f"padmarlin.nn.{module}.load_weight", counted)
        monkeypatch.setattr(f"padmarlin.nn.{module}.rank_and_size", lambda *_: (1, 2))
    mlp = QuantMLP.from_checkpoint(REAL[0], MLP)
    assert {shard.world_size for _, shard in seen} == {2} and len(seen) == 3
    assert mlp.down.k == 192


@pytest.mark.parametrize("size", [1, 2, 4])
def test_bits_are_those_of_a_checkpoint_that_was_folded(size, tmp_path, monkeypatch):
    """``padmarlin fold`` does on disk what happens here in memory: padding and all."""
    fold_checkpoint(ACT_ORDER, tmp_path / "folded")
    for rank in range(size):
        for module in ("fold", "parallel", "merged"):
            place = f"padmarlin.nn.{module}.rank_and_size"
            monkeypatch.setattr(place, lambda *_, rank=rank: (rank, size))
        here, there = (
            QuantMLP.from_checkpoint(directory, MLP).state_dict()
            for directory in (ACT_ORDER, tmp_path / "folded")
        )
        assert here.keys() == there.keys()
        for name, tensor in there.items():
            assert torch.equal(here[name], tensor), (rank, name)


# ---- a weight taken apart


@pytest.mark.parametrize("checkpoint", REAL, ids=lambda path: path.name)
@pytest.mark.parametrize("shard", [None, ("k", 1), ("n", 1)])
def test_unpacked_and_packed_again_is_the_same_weight(checkpoint, shard):
    cut = None if shard is None else padmarlin.Shard(*shard, 2)
    for name in ("gate_proj", "down_proj"):
        weight = padmarlin.load_weight(checkpoint, f"{MLP}.{name}", shard=cut)
        again = Unpacked.of(weight).packed()
        for key, tensor in weight.state_dict().items():
            assert torch.equal(again.state_dict()[key], tensor), (name, key)
