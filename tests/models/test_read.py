# SPDX-License-Identifier: Apache-2.0
"""Reading models: unknown architectures from their tensors, and every kind of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from padmarlin.models import read_model
from tests.checkpoint_files import REAL
from tests.models.configs import QWEN2_72B, write

UNKNOWN = {"model_type": "novel", "hidden_size": 256}


def decoder_tensors(layers: int = 2) -> dict[str, torch.Tensor]:
    def layer(n: int, k: int) -> torch.Tensor:
        return torch.zeros(n, k, dtype=torch.float16)

    tensors = {"model.embed_tokens.weight": layer(512, 256), "lm_head.weight": layer(512, 256)}
    for number in range(layers):
        block = f"model.layers.{number}"
        tensors |= {
            f"{block}.self_attn.q_proj.weight": layer(256, 256),
            f"{block}.self_attn.k_proj.weight": layer(128, 256),
            f"{block}.self_attn.v_proj.weight": layer(128, 256),
            f"{block}.self_attn.o_proj.weight": layer(256, 256),
            f"{block}.input_layernorm.weight": torch.zeros(256),
            f"{block}.mlp.gate.weight": layer(2, 256),
        }
        for expert in range(2):
            tensors |= {
                f"{block}.mlp.experts.{expert}.gate_proj.weight": layer(384, 256),
                f"{block}.mlp.experts.{expert}.up_proj.weight": layer(384, 256),
                f"{block}.mlp.experts.{expert}.down_proj.weight": layer(256, 384),
            }
    return tensors


def test_unknown_architecture(tmp_path: Path) -> None:
    write(tmp_path, UNKNOWN)
    save_file(decoder_tensors(), tmp_path / "model.safetensors")
    model = read_model(tmp_path)
    found = {
        layer.pattern: (layer.role, layer.k, layer.n, layer.axis, layer.count, kind is not None)
        for layer, kind in model.layers
    }
    experts = "model.layers.{0..1}.mlp.experts.{0..1}"
    assert found == {
        "lm_head": ("lm_head", 256, 512, "n", 1, False),
        "model.layers.{0..1}.self_attn.qkv_proj": ("qkv", 256, 512, "n", 2, True),
        "model.layers.{0..1}.self_attn.o_proj": ("o", 256, 256, "k", 2, True),
        "model.layers.{0..1}.mlp.gate": ("router", 256, 2, None, 2, False),
        f"{experts}.gate_up_proj": ("experts_gate_up", 256, 768, "n", 4, True),
        f"{experts}.down_proj": ("experts_down", 384, 256, "k", 4, True),
    }
    assert not model.known
    assert "unknown architecture 'novel'" in model.notes[0]


@pytest.mark.parametrize("directory", REAL, ids=lambda path: path.name)
def test_inferred_is_what_the_family_says(directory: Path, tmp_path: Path) -> None:
    """The real checkpoints, had their architecture another name."""
    config = json.loads((directory / "config.json").read_text())
    write(tmp_path, config | {"model_type": "novel"})
    (tmp_path / "model.safetensors").symlink_to(directory / "model.safetensors")

    def layers(path: Path) -> set[tuple[object, ...]]:
        return {
            (layer.pattern, layer.role, layer.k, layer.n, layer.axis, kind)
            for layer, kind in read_model(path).layers
            if kind is not None
        }

    assert layers(tmp_path) == layers(directory)


def test_the_files_say_what_is_quantized(tmp_path: Path) -> None:
    """Whatever the settings do not mention."""
    source = next(path for path in REAL if path.name == "gptq4_g128_sym_i384")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    from safetensors.torch import load_file

    tensors = load_file(source / "model.safetensors")
    layer = "model.layers.0.mlp.down_proj"
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(layer)}
    save_file(kept | {f"{layer}.weight": torch.zeros(256, 384)}, tmp_path / "model.safetensors")
    kinds = {layer.role: kind for layer, kind in read_model(tmp_path).layers}
    assert kinds["down"] is None
    assert kinds["gate_up"] is not None


def test_config_of_another_checkpoint(tmp_path: Path) -> None:
    source = next(path for path in REAL if path.name == "gptq4_g128_sym_i384")
    config = json.loads((source / "config.json").read_text())
    write(tmp_path, config | {"intermediate_size": 512})
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    with pytest.raises(ValueError, match="K = 512 as config.json says; check that config.json"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "8192"}, "'hidden_size' in config.json: got '8192', expected an integer"),
        ({"hidden_size": None}, "'hidden_size' in config.json: got nothing"),
        ({"intermediate_size": 0}, "'intermediate_size' in config.json: got 0"),
        ({"intermediate_size": 10**12}, "'intermediate_size' .* got 1000000000000"),
        ({"intermediate_size": 29568.0}, "'intermediate_size' .* got 29568.0"),
        ({"num_hidden_layers": -1}, "'num_hidden_layers' in config.json: got -1"),
        ({"num_hidden_layers": True}, "'num_hidden_layers' in config.json: got True"),
        ({"num_attention_heads": 0}, "'num_attention_heads' in config.json: got 0"),
        ({"num_attention_heads": 7}, "expected a divisor of hidden_size = 8192"),
        ({"num_key_value_heads": 7}, "expected a divisor of the 64 query heads"),
        ({"head_dim": 2**20}, "layer .*qkv_proj: got 8192 x 83886080, expected at most"),
        ({"model_type": 7}, "'model_type' in config.json: got 7, expected a string"),
        ({"model_type": "novel"}, "'model_type' in config.json: got 'novel', expected one of"),
        ({"text_config": 3}, "'text_config' in config.json: got 3, expected a JSON object"),
    ],
)
def test_config_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_model(write(tmp_path, QWEN2_72B | changes))


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "num_hidden_layers"])
def test_missing_key(key: str, tmp_path: Path) -> None:
    config = {name: value for name, value in QWEN2_72B.items() if name != key}
    with pytest.raises(ValueError, match=f"'{key}' in config.json: got nothing"):
        read_model(write(tmp_path, config))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": ' * 3000, "\udcff"])
def test_not_json(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match="plan_model: config.json: got"):
        read_model(path)


def test_no_such_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected an existing folder or config.json"):
        read_model(tmp_path / "absent")
    with pytest.raises(ValueError, match="expected a config.json"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        b"\x02" + bytes(7) + b"[]",
        b"\x04" + bytes(7) + b"{{{{",
        b"\x10" + bytes(7) + b'{"a":{"shape":3}}'[:16],
        (lambda header: len(header).to_bytes(8, "little") + header)(b'{"a":{"shape":[-1]}}'),
        (lambda header: len(header).to_bytes(8, "little") + header)(b'{"a.weight":{"shape":"x"}}'),
    ],
)
def test_damaged_header(data: bytes, tmp_path: Path) -> None:
    write(tmp_path, UNKNOWN)
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="model.safetensors"):
        read_model(tmp_path)


def test_nothing_to_plan(tmp_path: Path) -> None:
    write(tmp_path, UNKNOWN)
    save_file({"model.norm.weight": torch.zeros(8)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="no linear layers"):
        read_model(tmp_path)
