# SPDX-License-Identifier: Apache-2.0
"""Quantization settings: what the files say, what is assumed, what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from padmarlin.checkpoint import patterns
from padmarlin.models import Quantization, read_model
from tests.checkpoint_files import REAL
from tests.models.configs import QWEN2_72B, write

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}


def settings(
    tmp_path: Path, config: dict[str, Any], **asked: Any
) -> dict[str, Quantization | None]:
    """The settings of each layer of a model of four, by role; of the first layer that has one."""
    model = QWEN2_72B | {"num_hidden_layers": 4, "quantization_config": config}
    found: dict[str, Quantization | None] = {}
    for layer, kind in read_model(write(tmp_path, model), **asked).layers:
        found.setdefault(layer.role, kind)
    return found


def test_assumed_where_nothing_is_said(tmp_path: Path) -> None:
    model = read_model(write(tmp_path, QWEN2_72B))
    assert model.scheme.common == Quantization("gptq", 4, 128, False, True, "assumed")
    asked = read_model(tmp_path, bits=8, group_size=-1, act_order=True, sym=False)
    assert asked.scheme.common == Quantization("gptq", 8, -1, True, False, "assumed")
    assert not asked.notes


def test_gptq(tmp_path: Path) -> None:
    found = settings(tmp_path, GPTQ | {"desc_act": True, "sym": False, "bits": 8})
    assert found["down"] == Quantization("gptq", 8, 128, True, False, "config.json")


def test_what_is_asked_for_wins_and_is_noted(tmp_path: Path) -> None:
    model = read_model(write(tmp_path, QWEN2_72B | {"quantization_config": GPTQ}), group_size=64)
    assert model.scheme.common.group_size == 64
    assert model.notes == ("not as config.json says: group_size 128 -> 64",)


def test_gptq_dynamic_rules(tmp_path: Path) -> None:
    rules = {
        r"-:.*\.self_attn\..*": {},
        r"+:.*\.down_proj$": {"bits": 8, "group_size": 64, "desc_act": True, "sym": False},
    }
    found = settings(tmp_path, GPTQ | {"dynamic": rules})
    assert found["o"] is None and found["qkv"] is None
    assert found["down"] == Quantization("gptq", 8, 64, True, False, "config.json")
    assert found["gate_up"] == Quantization("gptq", 4, 128, False, True, "config.json")


@pytest.mark.parametrize("only", [["mlp.down_proj"], [["mlp.gate_proj"], ["mlp.down_proj"]]])
def test_gptq_of_some_modules_only(only: list[Any], tmp_path: Path) -> None:
    found = settings(tmp_path, GPTQ | {"modules_in_block_to_quantize": only})
    assert found["down"] is not None
    assert found["o"] is None
    assert (found["gate_up"] is not None) == (len(only) == 2)


def test_layers_that_differ_are_told_apart(tmp_path: Path) -> None:
    rules = {r"-:model\.layers\.(0|3)\.mlp\.down_proj": {}}
    model = QWEN2_72B | {"num_hidden_layers": 4, "quantization_config": GPTQ | {"dynamic": rules}}
    layers = read_model(write(tmp_path, model)).layers
    down = [(layer.pattern, kind is not None) for layer, kind in layers if layer.role == "down"]
    assert down == [
        ("model.layers.{0,3}.mlp.down_proj", False),
        ("model.layers.{1..2}.mlp.down_proj", True),
    ]


def test_awq(tmp_path: Path) -> None:
    config = {"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True}
    found = settings(tmp_path, config | {"modules_to_not_convert": ["gate_proj"]})
    assert found["down"] == Quantization("awq", 4, 64, False, False, "config.json")
    assert found["gate_up"] is None


def compressed(**weights: Any) -> dict[str, Any]:
    defaults = {"num_bits": 4, "group_size": 128, "strategy": "group", "symmetric": True}
    group = {"targets": ["Linear"], "weights": {**defaults, "type": "int", **weights}}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, (4, 128, False, True)),
        ({"actorder": "static"}, (4, 128, False, True)),
        ({"actorder": "group"}, (4, 128, True, True)),
        ({"actorder": True, "symmetric": False}, (4, 128, True, False)),
        ({"strategy": "channel", "group_size": None, "num_bits": 8}, (8, -1, False, True)),
    ],
)
def test_compressed_tensors(
    weights: dict[str, Any], expected: tuple[object, ...], tmp_path: Path
) -> None:
    found = settings(tmp_path, compressed(**weights))["down"]
    assert found is not None
    assert (found.bits, found.group_size, found.act_order, found.sym) == expected
    assert (found.method, found.source) == ("compressed-tensors", "config.json")


def test_compressed_tensors_targets_and_ignored(tmp_path: Path) -> None:
    config = compressed()
    config["ignore"] = ["lm_head", r"re:.*o_proj"]
    config["config_groups"]["group_1"] = {
        "targets": [r"re:.*down_proj$"],
        "weights": {"num_bits": 8, "strategy": "channel", "group_size": -1},
    }
    found = settings(tmp_path, config)
    assert found["o"] is None
    assert found["down"] is not None and found["down"].bits == 8
    assert found["gate_up"] is not None and found["gate_up"].bits == 4


def test_the_most_specific_target_decides_as_for_load_weight(tmp_path: Path) -> None:
    """Whatever the order of the groups: a name, then an expression, then the class."""
    config = compressed()
    weights = {"num_bits": 4, "strategy": "group"}
    down = "model.layers.1.mlp.down_proj"
    config["config_groups"] |= {
        "group_1": {"targets": [r"re:.*_proj$"], "weights": weights | {"group_size": 64}},
        "group_2": {"targets": [down], "weights": weights | {"group_size": 32}},
    }
    model = QWEN2_72B | {"num_hidden_layers": 2, "quantization_config": config}
    layers = read_model(write(tmp_path, model)).layers
    sizes = [(x.pattern, kind and kind.group_size) for x, kind in layers if x.role == "down"]
    assert sizes == [("model.layers.0.mlp.down_proj", 64), (down, 32)]


def test_an_expression_without_end_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(patterns, "TIMEOUT_S", 0.5)
    with pytest.raises(ValueError, match=r"plan_model: 'dynamic' .*no end of it within 0\.5 s"):
        settings(tmp_path, GPTQ | {"dynamic": {"-:(.*)*x": {}}})


def test_settings_of_the_language_models_part(tmp_path: Path) -> None:
    nested = QWEN2_72B | {"quantization_config": GPTQ | {"group_size": 64}}
    model = read_model(write(tmp_path, {"model_type": "qwen2_vl", "text_config": nested}))
    assert model.scheme.common == Quantization("gptq", 4, 64, False, True, "config.json")


def test_only_named_targets(tmp_path: Path) -> None:
    config = compressed()
    config["config_groups"]["group_0"]["targets"] = [r"re:.*down_proj$"]
    found = settings(tmp_path, config)
    assert found["down"] is not None
    assert found["gate_up"] is None


def test_methods_without_groups_are_planned_as_if_requantized(tmp_path: Path) -> None:
    model = read_model(
        write(tmp_path, QWEN2_72B | {"quantization_config": {"quant_method": "fp8"}})
    )
    assert model.scheme.common.source == "assumed"
    assert "'fp8'" in model.notes[0]


def test_settings_beside_the_config(tmp_path: Path) -> None:
    write(tmp_path, QWEN2_72B)
    (tmp_path / "quantize_config.json").write_text('{"bits": 8, "group_size": 32}')
    found = read_model(tmp_path).scheme.common
    assert (found.bits, found.group_size, found.source) == (8, 32, "quantize_config.json")


@pytest.mark.parametrize("directory", REAL, ids=lambda path: path.name)
def test_real_checkpoints(directory: Path) -> None:
    model = read_model(directory)
    common = model.scheme.common
    method = {"awq": "awq", "compressed-tensors": "ct_w", "gptq": "gptq"}[common.method]
    assert directory.name.startswith(f"{method}{common.bits}")
    assert f"_g{common.group_size}_" in directory.name
    assert common.act_order == ("desc" in directory.name)
    assert common.sym == ("_sym_" in directory.name)
    assert [layer.role for layer, kind in model.layers if kind] == ["qkv", "o", "gate_up", "down"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GPTQ | {"bits": 3}, "'bits' in config.json: got 3, expected 4 or 8"),
        (GPTQ | {"bits": "4"}, "'bits' in config.json: got '4', expected an integer"),
        (GPTQ | {"group_size": 0}, "'group_size' in config.json: got 0"),
        (GPTQ | {"group_size": None}, "'group_size' in config.json: got None"),
        (GPTQ | {"desc_act": "no"}, "'desc_act' in config.json: got 'no', expected true or false"),
        (GPTQ | {"dynamic": {"-:(": {}}}, "'dynamic' .*: got .*expected regular expressions"),
        (GPTQ | {"modules_in_block_to_quantize": 3}, "got 3, expected a list of strings"),
        (GPTQ | {"modules_in_block_to_quantize": [[3]]}, "expected a list of strings"),
        (GPTQ | {"dynamic": {"a": 3}}, "expected an object of settings"),
        (compressed(type="float"), "'type' .*: got 'float', expected 'int'"),
        (compressed(strategy="block"), "'strategy' .*: got 'block'"),
        ({"quant_method": "compressed-tensors"}, "'config_groups' in config.json: got nothing"),
        ({"quant_method": 3}, "'quant_method' in config.json: got 3, expected a string"),
        ([], "'quantization_config' in config.json: got \\[\\], expected an object"),
    ],
)
def test_refusals(config: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_model(write(tmp_path, QWEN2_72B | {"quantization_config": config}))
