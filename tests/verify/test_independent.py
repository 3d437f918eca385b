# SPDX-License-Identifier: Apache-2.0
"""The independent reader against what the quantizers' own packages say, against the tests' oracle
on ragged layers, and on damaged files. It must share nothing with what it judges."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import padmarlin
from padmarlin.verify.independent import Checkpoint, Layer
from tests.checkpoint_files import REAL, gptq_config, random_layer, reference, write_checkpoint
from tests.oracle import (
    Awq,
    CompressedTensors,
    Gptq,
    random_awq,
    random_compressed_tensors,
    random_gptq,
)

NAME = "model.layers.0.mlp.down_proj"


def whole(layer: Layer) -> np.ndarray:
    return layer.block(slice(0, layer.k), slice(0, layer.n))


@pytest.mark.parametrize("directory", REAL, ids=lambda path: path.name)
def test_real_checkpoints(directory: Path) -> None:
    checkpoint = Checkpoint(directory)
    assert len(checkpoint.layers) == 7
    for name in checkpoint.layers:
        layer = checkpoint.layer(name)
        if layer.dtype != "F16":
            x, y = (reference(directory, name, key) for key in ("x", "y_nobias"))
            np.testing.assert_allclose(x.astype(np.float64) @ whole(layer), y, 0.02, 0.02)
            continue
        weight = np.ascontiguousarray(whole(layer).astype(np.float16))
        digest = hashlib.sha256(weight.tobytes()).hexdigest()
        assert digest == str(reference(directory, name, "sha256_w_fp16")), name


def config_of(layer: Gptq | Awq | CompressedTensors) -> dict[str, object]:
    if isinstance(layer, Gptq):
        return gptq_config(layer.bits, layer.group_size, checkpoint_format=layer.checkpoint_format)
    if isinstance(layer, Awq):
        return {"quant_method": "awq", "bits": 4, "group_size": layer.group_size}
    weights = {
        "num_bits": layer.bits,
        "group_size": None if layer.group_size == -1 else layer.group_size,
        "strategy": "channel" if layer.group_size == -1 else "group",
        "symmetric": layer.weight_zero_point is None,
        "actorder": "group" if layer.weight_g_idx is not None else None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


RNG = np.random.default_rng(20)
RAGGED = [
    random_gptq(RNG, 203, 37, group_size=48, symmetric=False, act_order=True),
    random_gptq(RNG, 203, 37, group_size=48, symmetric=False, act_order=True, bits=8),
    random_gptq(RNG, 96, 72, group_size=-1, symmetric=False),
    random_gptq(RNG, 96, 72, group_size=32, symmetric=False, checkpoint_format="gptq_v2", bits=8),
    random_awq(RNG, 203, 45, group_size=48),
    random_awq(RNG, 203, 45, group_size=-1),
    random_compressed_tensors(RNG, 203, 37, group_size=48, symmetric=False, act_order=True),
    random_compressed_tensors(RNG, 203, 37, group_size=48, symmetric=False, bits=8),
    random_compressed_tensors(RNG, 203, 37, group_size=-1),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", range(len(RAGGED)))
def test_ragged_layers(tmp_path: Path, case: int, dtype: torch.dtype) -> None:
    """Seed 20."""
    expected = RAGGED[case]
    tensors = expected.tensors()
    for key in ("scales", "weight_scale"):
        if key in tensors:
            tensors[key] = tensors[key].to(dtype)
    write_checkpoint(tmp_path, {NAME: tensors}, config_of(expected))
    layer = Checkpoint(tmp_path).layer(NAME)
    assert (layer.k, layer.n) == (expected.k, expected.n)
    weight = expected.dequantized(dtype).double().numpy()
    np.testing.assert_array_equal(whole(layer), weight)
    rows, columns = slice(91, 96), slice(11, 30)
    np.testing.assert_array_equal(layer.block(rows, columns), weight[rows, columns])
    loaded = padmarlin.dequantize(padmarlin.load_weight(tmp_path, NAME))
    np.testing.assert_array_equal(loaded.double().numpy(), weight)


def test_rules_for_single_layers(tmp_path: Path) -> None:
    config = gptq_config(8, 64, dynamic={"-:.*lm_head": {}, "+:.*down": {"bits": 4}})
    write_checkpoint(tmp_path, {NAME: random_layer(128, 64, bits=4, group_size=64)}, config)
    assert Checkpoint(tmp_path).layer(NAME).bits == 4


def test_it_shares_nothing_with_what_it_judges() -> None:
    package = Path(padmarlin.__file__).parent / "verify"
    for file in ("files.py", "independent.py", "extension.py"):
        for node in ast.walk(ast.parse((package / file).read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("padmarlin"):
                own = str(node.module).startswith("padmarlin.verify")
                # How to refuse, and how to match a hostile expression in bounded time.
                harmless = node.module in ("padmarlin.errors", "padmarlin.checkpoint.patterns")
                assert own or harmless, f"{file} imports {node.module}"


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "no header": lambda data: b"\xff" * 8 + data[8:],
    "not JSON": lambda data: data[:8] + b"x" + data[9:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    write_checkpoint(tmp_path, {NAME: random_layer(128, 64, bits=4, group_size=64)}, gptq_config())
    file = tmp_path / "model.safetensors"
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        Checkpoint(tmp_path)


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    tensors = random_layer(128, 64, bits=4, group_size=64)
    tensors["g_idx"][5] = 2
    write_checkpoint(tmp_path, {NAME: tensors}, gptq_config(4, 64))
    with pytest.raises(ValueError, match="g_idx.*0 to 1"):
        Checkpoint(tmp_path).layer(NAME)


def test_missing_settings(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {NAME: random_layer(128, 64, bits=4, group_size=64)}, {"bits": 4})
    with pytest.raises(ValueError, match="group_size"):
        Checkpoint(tmp_path).layer(NAME)
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="quantization_config"):
        Checkpoint(tmp_path).layer(NAME)
