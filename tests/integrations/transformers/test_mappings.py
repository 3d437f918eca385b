# SPDX-License-Identifier: Apache-2.0
"""What is exchanged in Transformers and put back, and what padmarlin leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

transformers = pytest.importorskip("transformers", minversion="5.4")

from transformers.quantizers import auto  # noqa: E402

from padmarlin.integrations import transformers as integration  # noqa: E402
from padmarlin.integrations.transformers.quantizer import (  # noqa: E402
    METHODS,
    PadmarlinConfig,
    PadmarlinQuantizer,
    _check_without,
)
from padmarlin.integrations.transformers.stored import (  # noqa: E402
    Header,
    modules_lacking,
    modules_of,
    stored_layers,
)
from padmarlin.integrations.transformers.taken import why_not  # noqa: E402
from tests.checkpoint_files import REAL  # noqa: E402

MAPPINGS = (auto.AUTO_QUANTIZER_MAPPING, auto.AUTO_QUANTIZATION_CONFIG_MAPPING)
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
CT_GROUP = {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}}
CT = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": CT_GROUP},
}


def test_enable_is_idempotent_and_disable_takes_it_back():
    stock = [dict(mapping) for mapping in MAPPINGS]
    integration.disable()  # of nothing
    assert [dict(mapping) for mapping in MAPPINGS] == stock
    integration.enable()
    once = [dict(mapping) for mapping in MAPPINGS]
    integration.enable()
    try:
        assert [dict(mapping) for mapping in MAPPINGS] == once
        changed = {name for name in stock[0] if once[0][name] is not stock[0][name]}
        assert changed == set(METHODS)
    finally:
        integration.disable()
    assert [dict(mapping) for mapping in MAPPINGS] == stock


@pytest.mark.parametrize("checkpoint", REAL, ids=lambda path: path.name)
def test_real_checkpoints_are_taken(checkpoint):
    settings = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    assert why_not(settings) is None
    assert PadmarlinConfig.from_dict(settings).to_dict() == settings


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (GPTQ | {"bits": 3}, "gptq of 3 bits"),
        (GPTQ | {"checkpoint_format": "marlin"}, "gptq of checkpoint_format 'marlin'"),
        ({"quant_method": "awq", "bits": 4, "version": "GEMM"}, None),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "awq of version 'gemv'"),
        ({"quant_method": "awq", "bits": 8}, "awq of 8 bits"),
        (CT, None),
        (CT | {"format": "float-quantized"}, "format 'float-quantized' of group_0"),
        (
            CT | {"config_groups": {"a": CT_GROUP | {"weights": {"num_bits": 8, "type": "float"}}}},
            "weights of type 'float' and 8 bits in a",
        ),
        (
            CT | {"config_groups": {"a": CT_GROUP | {"input_activations": {"num_bits": 8}}}},
            "quantized activations of a",
        ),
        (CT | {"config_groups": None}, "compressed-tensors without config_groups"),
    ],
)
def test_what_is_taken(settings, reason):
    assert why_not(settings) == reason


def test_what_is_not_taken_stays_with_transformers():
    integration.enable()
    try:
        settings = auto.AutoQuantizationConfig.from_dict(GPTQ | {"bits": 3})
        assert type(settings) is transformers.GPTQConfig
        with pytest.raises(ImportError, match="optimum"):
            auto.AutoHfQuantizer.from_config(settings)
    finally:
        integration.disable()


def test_importing_and_enabling_needs_no_quantizer_package():
    code = (
        "import sys; from padmarlin.integrations.transformers import enable; "
        "assert 'transformers' not in sys.modules; enable(); "
        "print([m for m in ('optimum', 'gptqmodel', 'awq', 'compressed_tensors') "
        "if m in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("version", "outcome"), [("4.57.6", "refused"), ("5.99.0", "warned")])
def test_versions(version, outcome, monkeypatch, caplog):
    monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
    transformers.utils.logging.enable_propagation()
    if outcome == "refused":
        with pytest.raises(ImportError, match="transformers: got 4.57.6, expected >= 5.4"):
            integration.enable()
        return
    integration.enable()
    integration.disable()
    assert "this is 5.99.0" in caplog.text


@pytest.mark.parametrize(
    ("layers", "modules", "found", "without"),
    [
        (["a.layers.0.q"], ["a.layers.0.q", "a.layers.1.q"], {"a.layers.0.q": "a.layers.0.q"}, []),
        # a base model, and a model that contains one
        (["model.layers.0.q"], ["layers.0.q"], {"layers.0.q": "model.layers.0.q"}, []),
        (["layers.0.q"], ["model.layers.0.q"], {"model.layers.0.q": "layers.0.q"}, []),
        # renamed, beside a tower with blocks of the same names
        (
            ["language_model.model.layers.0.q", "vision.layers.0.q"],
            ["model.language_model.layers.0.q", "model.vision.layers.0.q"],
            {"model.vision.layers.0.q": "vision.layers.0.q"},
            ["language_model.model.layers.0.q"],
        ),
        (["model.layers.1.q"], ["model.layers.0.q"], {}, ["model.layers.1.q"]),
        (["lm_head"], ["score"], {}, ["lm_head"]),
    ],
)
def test_modules_of_layers(layers, modules, found, without):
    assert modules_of(layers, modules) == (found, without)


@pytest.mark.parametrize(
    ("without", "modules", "lacking"),
    [
        (["model.layers.0.mlp.gate_proj"], ["layers.0.mlp.gate_up_proj"], True),
        (["model.layers.0.mlp.gate_proj"], ["layers.0.mlp.plain"], False),
        # a vision tower's, loaded alone, has what it needs
        (["model.layers.0.mlp.gate_proj"], ["vision.layers.0.mlp.fc1"], False),
        (["model.layers.0.mlp.gate_proj"], ["layers.1.mlp.gate_up_proj"], False),
        (["lm_head"], ["score"], False),
    ],
)
def test_modules_that_files_have_nothing_for(without, modules, lacking):
    weight = {"weight": Header("F16", (8, 8))}
    layers = {"model.layers.0.mlp.plain": weight, "vision.layers.0.mlp.fc1": weight}
    assert modules_lacking(layers, without, modules) == (modules if lacking else [])


def test_a_mixture_of_experts_is_refused():
    with pytest.raises(ValueError, match="a mixture of experts.*no MoE layers yet"):
        _check_without(["model.layers.0.mlp.experts.0.up_proj"], [])


def test_a_distributed_model_is_refused():
    quantizer = PadmarlinQuantizer(PadmarlinConfig(**GPTQ))
    model = SimpleNamespace(config=SimpleNamespace(distributed_config=object()))
    with pytest.raises(ValueError, match="tp_plan.*padmarlin.nn"):
        quantizer._process_model_before_weight_loading(model, checkpoint_files=["a.safetensors"])


def test_files_that_are_no_safetensors_are_refused():
    with pytest.raises(ValueError, match="pytorch_model.bin, expected safetensors files"):
        stored_layers(["pytorch_model.bin"])
