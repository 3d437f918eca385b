# SPDX-License-Identifier: Apache-2.0
"""``load_weight`` of AWQ and compressed-tensors: made checkpoints against ``repack_*`` of the whole
tensors, the settings of a layer, and every refusal. (The real checkpoints are in test_checkpoint.)

Seeds: the argument of default_rng.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import padmarlin
from padmarlin import Shard, load_weight
from padmarlin.verify import verify_checkpoint
from tests import checkpoint_files as files
from tests.oracle import random_awq, random_compressed_tensors
from tests.test_checkpoint import assert_same_weight

LAYER = "model.layers.0.mlp.down_proj"


def awq_config(group_size: int = 128, **more: Any) -> dict[str, Any]:
    return {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": group_size, **more}


def compressed_config(
    bits: int = 4, group_size: int | None = 128, symmetric: bool = True, **weights: Any
) -> dict[str, Any]:
    """As compressed-tensors writes it, for all linear layers."""
    per_channel = group_size in (None, -1)
    arguments = {
        "num_bits": bits,
        "type": "int",
        "symmetric": symmetric,
        "strategy": "channel" if per_channel else "group",
        "group_size": group_size,
        "actorder": None,
        "dynamic": False,
        **weights,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": arguments}},
        "ignore": ["lm_head"],
    }


# (k, n, group_size, axis, tp): ranks that begin inside a word, inside a group, or both.
CUTS = [
    (1032, 40, 128, "k", 2),
    (1032, 40, 128, "k", 8),
    (1032, 33, 24, "k", 8),
    (1032, 33, 100, "k", 8),
    (1030, 1, -1, "k", 5),
    (464, 24, 128, "k", 4),
    (150, 1000, 32, "n", 8),
    (150, 3420, 24, "n", 4),
    (150, 7, 32, "n", 7),
]


@pytest.mark.parametrize(("k", "n", "group_size", "axis", "tp"), CUTS)
def test_part_of_awq_read_from_disk_equals_part_of_the_whole(
    k: int, n: int, group_size: int, axis: str, tp: int, tmp_path: Path
) -> None:
    tensors = random_awq(np.random.default_rng(1), k, n, group_size=group_size).tensors()
    directory = files.write_checkpoint(tmp_path, {LAYER: tensors}, awq_config(group_size))
    for shard in (None, *(Shard(axis, rank, tp) for rank in range(tp))):
        expected = padmarlin.repack_awq(**tensors, group_size=group_size, shard=shard)
        assert_same_weight(load_weight(directory, LAYER, shard=shard), expected)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("symmetric", "act_order"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize(("k", "n", "group_size", "axis", "tp"), CUTS)
def test_part_of_compressed_tensors_read_from_disk_equals_part_of_the_whole(
    k: int,
    n: int,
    group_size: int,
    axis: str,
    tp: int,
    bits: int,
    symmetric: bool,
    act_order: bool,
    tmp_path: Path,
) -> None:
    layer = random_compressed_tensors(
        np.random.default_rng(2),
        k,
        n,
        bits=bits,
        group_size=group_size,
        symmetric=symmetric,
        act_order=act_order,
    )
    order = "group" if act_order else None
    config = compressed_config(bits, group_size, symmetric, actorder=order)
    directory = files.write_checkpoint(tmp_path, {LAYER: layer.tensors()}, config)
    for shard in (None, *(Shard(axis, rank, tp) for rank in range(tp))):
        expected = padmarlin.repack_compressed_tensors(**layer.arguments(), shard=shard)
        assert_same_weight(load_weight(directory, LAYER, shard=shard), expected)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"version": "GEMM"},
        {"version": None, "format": "gemm", "checkpoint_format": "gemm", "pack_dtype": "int32"},
        {"zero_point": True, "modules_to_not_convert": ["lm_head"]},
        {"dynamic": {r"+:.*\.down_proj": {"group_size": 64}}, "group_size": 32},
    ],
)
def test_settings_of_awq(more: dict[str, Any], tmp_path: Path) -> None:
    layer = random_awq(np.random.default_rng(3), 128, 64, group_size=64)
    directory = files.write_checkpoint(tmp_path, {LAYER: layer.tensors()}, awq_config(64) | more)
    expected = padmarlin.repack_awq(**layer.arguments())
    assert_same_weight(load_weight(directory, LAYER), expected)


def test_awq_settings_by_their_older_names(tmp_path: Path) -> None:
    layer = random_awq(np.random.default_rng(3), 128, 64, group_size=64)
    config = {"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True}
    directory = files.write_checkpoint(tmp_path, {LAYER: layer.tensors()}, config)
    expected = padmarlin.repack_awq(**layer.arguments())
    assert_same_weight(load_weight(directory, LAYER), expected)
    assert verify_checkpoint(directory, tp=1).passed


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
@pytest.mark.parametrize("part", [None, "text_config"])
def test_where_config_json_may_have_settings(part: str | None, key: str, tmp_path: Path) -> None:
    layer = random_awq(np.random.default_rng(3), 128, 64, group_size=64)
    directory = files.write_checkpoint(tmp_path, {LAYER: layer.tensors()}, {})
    settings = {key: awq_config(64)}
    (directory / "config.json").write_text(json.dumps({part: settings} if part else settings))
    expected = padmarlin.repack_awq(**layer.arguments())
    assert_same_weight(load_weight(directory, LAYER), expected)
    assert verify_checkpoint(directory, tp=1).passed


def test_awq_without_zero_points_is_symmetric(tmp_path: Path) -> None:
    config = awq_config(64, zero_point=False)
    layer = random_awq(np.random.default_rng(4), 128, 64, group_size=64, symmetric=True)
    directory = files.write_checkpoint(tmp_path, {LAYER: layer.tensors()}, config)
    assert load_weight(directory, LAYER).zeros is None
    layer = random_awq(np.random.default_rng(4), 128, 64, group_size=64)
    directory = files.write_checkpoint(tmp_path, {LAYER: layer.tensors()}, config)
    refused(directory, "expected 8 everywhere, as sym=True; check zero_point")


def refused(directory: Path, *said: str, name: str = LAYER) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        load_weight(directory, name)
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "gemv"}, "'version' in config.json: got 'gemv', expected 'gemm'"),
        ({"version": "gemv_fast"}, "got 'gemv_fast', expected 'gemm'"),
        ({"checkpoint_format": "marlin"}, "'checkpoint_format' in config.json: got 'marlin'"),
        ({"version": 1}, "got 1, expected a string"),
        ({"bits": 8}, "'bits' in config.json: got 8, expected 4: AWQ defines no other packing"),
        ({"bits": None}, "'bits' in config.json: got None, expected an integer"),
        ({"group_size": 0}, "'group_size' in config.json: got 0, expected 1 to"),
        ({"group_size": 32}, "F16 (2, 64), expected F16 or BF16 or F32 (4, any) = (groups, n)"),
        ({"pack_dtype": "int16"}, "got 'int16', expected 'int32'"),
        ({"zero_point": 1}, "'zero_point' in config.json: got 1, expected true or false"),
    ],
)
def test_refused_settings_of_awq(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    tensors = random_awq(np.random.default_rng(5), 128, 64, group_size=64).tensors()
    refused(files.write_checkpoint(tmp_path, {LAYER: tensors}, awq_config(64) | changes), said)


Change = Callable[[dict[str, Tensor]], Any]


def _set(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda tensors: tensors.__setitem__(name, change(tensors[name]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("qweight"), f"no tensor '{LAYER}.qweight'"),
        (lambda t: t.pop("qzeros"), f"no tensor '{LAYER}.qzeros'"),
        (_set("qweight", lambda t: t[:, :7]), "I32 (128, 7), expected I32 (128, 8)"),
        (_set("qweight", lambda t: t[:64]), "F16 (2, 64), expected F16 or BF16 or F32 (1, any)"),
        (_set("qweight", lambda t: t.float()), "F32 (128, 8), expected I32 (any, any)"),
        (_set("qzeros", lambda t: t[:1]), "I32 (1, 8), expected I32 (2, 8)"),
        (_set("scales", lambda t: t.double()), "F64 (2, 64), expected F16"),
        (_set("scales", lambda t: t * float("nan")), "nan at group 0"),
    ],
)
def test_awq_tensors_that_do_not_fit(change: Change, said: str, tmp_path: Path) -> None:
    tensors = random_awq(np.random.default_rng(6), 128, 64, group_size=64).tensors()
    change(tensors)
    refused(files.write_checkpoint(tmp_path, {LAYER: tensors}, awq_config(64)), said, LAYER)


# ---- compressed-tensors: which group a layer is in

LAYERS = {
    "model.layers.0.self_attn.q_proj": (8, 32),
    "model.layers.0.mlp.up_proj": (4, 64),
    "model.layers.1.mlp.up_proj": (4, -1),
}


@pytest.mark.parametrize("own_format", [False, True])
def test_the_most_specific_target_decides(own_format: bool, tmp_path: Path) -> None:
    layers = {
        name: random_compressed_tensors(np.random.default_rng(7), 96, 64, bits=b, group_size=g)
        for name, (b, g) in LAYERS.items()
    }
    group = compressed_config()["config_groups"]["group_0"]
    config = compressed_config()
    config["config_groups"] = {}
    targets = [["Linear"], ["re:.*up_proj", "re:.*gate_proj"], ["model.layers.1.mlp.up_proj"]]
    for i, (bits, group_size) in enumerate(LAYERS.values()):
        own = copy.deepcopy(group) | {"targets": targets[i]}
        own["weights"] |= {"num_bits": bits, "group_size": group_size, "strategy": None}
        if own_format:
            own["format"] = "pack-quantized"
        config["config_groups"][f"group_{i}"] = own
    if own_format:
        config["format"] = "mixed-precision"
    tensors = {name: layer.tensors() for name, layer in layers.items()}
    directory = files.write_checkpoint(tmp_path, tensors, config)
    for name, layer in layers.items():
        expected = padmarlin.repack_compressed_tensors(**layer.arguments())
        assert_same_weight(load_weight(directory, name), expected)


@pytest.mark.parametrize("value", ["weight", "static", False, None, "group", "dynamic", True])
def test_a_g_idx_of_nothing_but_minus_one(value: Any, tmp_path: Path) -> None:
    """compressed-tensors leaves it so where nothing was reordered."""
    layer = random_compressed_tensors(np.random.default_rng(8), 256, 64)
    tensors = {**layer.tensors(), "weight_g_idx": torch.full((256,), -1, dtype=torch.int32)}
    config = compressed_config(actorder=value)
    directory = files.write_checkpoint(tmp_path, {LAYER: tensors}, config)
    for shard in (None, Shard("k", 1, 4)):
        expected = padmarlin.repack_compressed_tensors(**layer.arguments(), shard=shard)
        assert_same_weight(load_weight(directory, LAYER, shard=shard), expected)


def compressed(tmp_path: Path, config: dict[str, Any], **layer: Any) -> Path:
    tensors = random_compressed_tensors(np.random.default_rng(9), 256, 64, **layer).tensors()
    return files.write_checkpoint(tmp_path, {LAYER: tensors}, config)


@pytest.mark.parametrize(
    "name",
    ["int-quantized", "float-quantized", "nvfp4-pack-quantized", "marlin-24", "dense", None],
)
def test_other_formats_are_refused(name: str | None, tmp_path: Path) -> None:
    config = compressed_config()
    directory = compressed(tmp_path, config | {"format": name})
    got = "None" if name is None else repr(name)
    refused(directory, f"'format' in config.json: got {got}, expected 'pack-quantized'; requantize")
    config["config_groups"]["group_0"]["format"] = name or "naive-quantized"
    directory = compressed(tmp_path, config)
    refused(directory, "'format' in 'group_0' of 'config_groups' of config.json: got", "W4A16")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"num_bits": 3}, "'num_bits' in 'weights' of 'group_0' of 'config_groups' of config.json"),
        ({"num_bits": None}, "got None, expected an integer"),
        ({"num_bits": 8}, "I32 (64, 32), expected I32 (64, 64) = (n, ceil(k * bits / 32))"),
        ({"type": "float"}, "got 'float', expected 'int'"),
        ({"dynamic": True}, "got True, expected false"),
        ({"symmetric": "yes"}, "got 'yes', expected true or false"),
        ({"symmetric": False}, f"no tensor '{LAYER}.weight_zero_point'"),
        ({"strategy": "tensor"}, "got 'tensor', expected 'group' or 'channel'"),
        ({"strategy": "block"}, "got 'block', expected 'group' or 'channel'"),
        ({"strategy": "channel"}, "got 128, expected null or -1, as the strategy is 'channel'"),
        ({"group_size": None}, "'group_size' in 'weights' of"),
        ({"group_size": -1}, "got -1, expected a positive integer, as the strategy is 'group'"),
        ({"group_size": 64}, "F16 (64, 2), expected F16 or BF16 or F32 (64, 4) = (n, groups)"),
        ({"group_size": -1, "strategy": "channel"}, "(64, 1) = (n, groups)"),
        ({"actorder": "group"}, f"no tensor '{LAYER}.weight_g_idx'"),
        ({"actorder": "sideways"}, "got 'sideways', expected 'group', 'weight', true, false"),
        ({"actorder": 7}, "got 7, expected a string"),
    ],
)
def test_refused_settings_of_weights(weights: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = compressed_config()
    config["config_groups"]["group_0"]["weights"] |= weights
    refused(compressed(tmp_path, config), said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config_groups": None}, "'config_groups' in config.json: got None"),
        (
            {"config_groups": {"W4A16": ["Linear"]}},
            "'W4A16' in 'config_groups' of config.json: got",
        ),
        ({"config_groups": {"a": {"targets": "Linear"}}}, "'targets' in 'a' of 'config_groups' of"),
        ({"config_groups": {"a": {"targets": ["re:("]}}}, "expected regular expressions"),
        ({"config_groups": {"a": {"targets": ["Linear"]}}}, "'weights' in 'a' of 'config_groups'"),
        ({"config_groups": {"a": {"targets": ["lm_head"]}}}, "no target of 'config_groups' in"),
        ({"config_groups": {}}, f"{LAYER!r}, which is not quantized"),
        ({"ignore": [LAYER]}, f"{LAYER!r} among 'ignore' in config.json excludes it"),
        ({"ignore": ["re:.*down"]}, "'re:.*down' among 'ignore' in config.json excludes it"),
        ({"ignore": "lm_head"}, "'ignore' in config.json: got 'lm_head', expected a list"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "'sparsity_config' in config.json"),
    ],
)
def test_refused_settings(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    refused(compressed(tmp_path, compressed_config() | changes), said)


@pytest.mark.parametrize("sparsity", [None, {}, {"format": "dense", "targets": []}])
def test_dense_sparsity_is_none(sparsity: Any, tmp_path: Path) -> None:
    directory = compressed(tmp_path, compressed_config() | {"sparsity_config": sparsity})
    assert load_weight(directory, LAYER).k == 256


def test_layers_that_are_not_quantized(tmp_path: Path) -> None:
    layers = {"lm_head": {"weight": torch.zeros(8, 8)}, "model.norm": {"weight": torch.zeros(8)}}
    for config in (compressed_config(), awq_config()):
        directory = files.write_checkpoint(tmp_path, layers, config)
        for name in layers:
            refused(directory, f"{name!r}, which is not quantized", name=name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("weight_packed"), f"no tensor '{LAYER}.weight_packed'"),
        (lambda t: t.pop("weight_scale"), f"no tensor '{LAYER}.weight_scale'"),
        (lambda t: t.pop("weight_shape"), f"no tensor '{LAYER}.weight_shape'"),
        (_set("weight_shape", lambda t: t[:1]), "I64 (1,), expected I32 or I64 (2) = (n, k)"),
        (_set("weight_shape", lambda t: t.float()), "F32 (2,), expected I32 or I64 (2)"),
        (_set("weight_shape", lambda t: -t), "(-64, -256), expected (n, k), both from 1 to 2^31"),
        (_set("weight_shape", lambda t: t * 2**40), "expected (n, k), both from 1 to 2^31 - 1"),
        (_set("weight_shape", lambda t: t.flip(0)), "I32 (64, 32), expected I32 (256, 8)"),
        (_set("weight_packed", lambda t: t[:, :31]), "I32 (64, 31), expected I32 (64, 32)"),
        (_set("weight_packed", lambda t: t.char()), "I8 (64, 32), expected I32 (64, 32)"),
        (_set("weight_scale", lambda t: t[:, :1]), "F16 (64, 1), expected F16 or BF16 or F32 (64,"),
        (_set("weight_scale", lambda t: t * float("inf")), "weight_scale: got"),
        (_set("weight_zero_point", lambda t: t.char()), "I8 (8, 2), expected I32 (8, 2)"),
        (_set("weight_zero_point", lambda t: t[:7]), "I32 (7, 2), expected I32 (8, 2)"),
        (_set("weight_g_idx", lambda t: t + 1), "expected 0 to 1, the groups that there are"),
        (_set("weight_g_idx", lambda t: t - 1), "-1 at row"),
        (_set("weight_g_idx", lambda t: t[1:]), "I32 (255,), expected I32 or I64 (256)"),
    ],
)
def test_compressed_tensors_that_do_not_fit(change: Change, said: str, tmp_path: Path) -> None:
    layer = random_compressed_tensors(
        np.random.default_rng(10), 256, 64, symmetric=False, act_order=True
    )
    tensors = layer.tensors()
    change(tensors)
    config = compressed_config(symmetric=False, actorder="group")
    refused(files.write_checkpoint(tmp_path, {LAYER: tensors}, config), said, LAYER)
