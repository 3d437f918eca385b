# SPDX-License-Identifier: Apache-2.0
"""``from_pretrained`` after ``enable()``: real checkpoints against their own logits, and made ones
of every kind against float32 models of their dequantized weights."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

transformers = pytest.importorskip("transformers", minversion="5.4")

from padmarlin.integrations.transformers import disable, enable  # noqa: E402
from padmarlin.nn import QuantLinear  # noqa: E402
from tests.checkpoint_files import AWQ, COMPRESSED_TENSORS, GPTQ, QUANTIZED_LAYERS, REAL  # noqa: E402
from tests.integrations.transformers.models import made_gptq, oracle  # noqa: E402
from tests.kernels import cuda_skip_reason  # noqa: E402

DOWN = QUANTIZED_LAYERS[-1]
IDS = torch.arange(1, 25).view(2, 12) * 7919 % 512

EPS = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


@pytest.fixture(autouse=True)
def _enabled(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    enable()
    yield
    disable()


def load(directory, **arguments):
    arguments = {"dtype": torch.float16, **arguments}
    return transformers.AutoModelForCausalLM.from_pretrained(directory, **arguments)


def quantized(model) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, QuantLinear)}


def check_logits(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    """A layer's result is rounded about ten times on the way to the logits."""
    assert got.shape == want.shape
    error = float((got.double() - want.double()).norm() / want.double().norm())
    assert error <= 4 * EPS[dtype], error


def check_made(
    directory, *, dtype: torch.dtype = torch.float16, layers=QUANTIZED_LAYERS, **load_by
):
    model = load(directory, dtype=dtype, **load_by)
    assert quantized(model) == set(layers)
    check_logits(model(IDS).logits, oracle(directory, IDS, dtype), dtype)
    return model


@pytest.mark.parametrize("checkpoint", REAL, ids=lambda path: path.name)
def test_real_checkpoints_give_their_own_logits(checkpoint):
    with np.load(checkpoint / "reference.npz") as arrays:
        ids, want = (torch.from_numpy(arrays[name]) for name in ("input_ids", "logits"))
    model = load(checkpoint)
    assert quantized(model) == set(QUANTIZED_LAYERS)
    assert model.dtype == torch.float16
    # Without torch.no_grad(): nothing in the model requires grad.
    got = model(ids).logits
    # GPTQModel ran its AWQ model in bfloat16.
    check_logits(got, want, torch.bfloat16 if checkpoint == AWQ else torch.float16)
    check_logits(got, oracle(checkpoint, ids, torch.float16), torch.float16)


@pytest.mark.parametrize("checkpoint", REAL, ids=lambda path: path.name)
def test_generate(checkpoint):
    model = load(checkpoint)
    prompt = IDS[:, :5]
    got = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False
    )
    tokens = prompt
    for _ in range(4):
        best = model(tokens).logits[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, best], 1)
    ended = (got == model.generation_config.eos_token_id).any()
    assert ended or torch.equal(got, tokens)


@pytest.mark.parametrize(
    "options",
    [
        {"act_order": True},
        {"act_order": True, "checkpoint_format": "gptq_v2", "intermediate": 328},
        {"bits": 8},
        {"intermediate": 200, "group_size": 64},
        {"intermediate": 200, "group_size": 40, "act_order": True},
        {"group_size": -1},
        {"lm_head": True},
        {"plain": (DOWN,), "dynamic": {r"-:.*down_proj": {}}},
        {"other_bits": {DOWN: 8}, "dynamic": {r"+:.*down_proj": {"bits": 8}}},
        {"meta": {"quantizer": ["gptqmodel:7.7.0"]}, "modules_in_block_to_quantize": [["a"]]},
    ],
    ids=str,
)
def test_made_checkpoints(options, tmp_path):
    directory = made_gptq(tmp_path, **options)
    layers = set(QUANTIZED_LAYERS) - set(options.get("plain", ()))
    check_made(directory, layers=layers | ({"lm_head"} if options.get("lm_head") else set()))


def test_a_quantized_head_counts_more_than_tied_embeddings(tmp_path):
    directory = made_gptq(tmp_path, lm_head=True)
    want = oracle(directory, IDS, torch.float16)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    model = load(directory)
    assert "lm_head" in quantized(model)
    check_logits(model(IDS).logits, want, torch.float16)


@pytest.mark.parametrize("checkpoint", [GPTQ[0], AWQ, COMPRESSED_TENSORS], ids=lambda p: p.name)
def test_bfloat16(checkpoint):
    check_made(checkpoint, dtype=torch.bfloat16)


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_device_map(device_map):
    pytest.importorskip("accelerate", reason="device_map needs accelerate")
    check_made(GPTQ[0], device_map=device_map)


@pytest.mark.gpu
@pytest.mark.skipif(cuda_skip_reason() is not None, reason=str(cuda_skip_reason()))
@pytest.mark.parametrize("checkpoint", REAL, ids=lambda path: path.name)
def test_on_a_gpu(checkpoint):
    """Repacked there, multiplied by the kernels; ``generate`` compiles it for a static cache."""
    pytest.importorskip("accelerate", reason="device_map needs accelerate")
    model = load(checkpoint, device_map="cuda")
    prompt = IDS.cuda()
    want = oracle(checkpoint, IDS, torch.float16)
    check_logits(model(prompt).logits.cpu(), want, torch.float16)
    arguments = {"attention_mask": torch.ones_like(prompt), "do_sample": False}
    arguments |= {"max_new_tokens": 4, "min_new_tokens": 4}
    got = model.generate(prompt, **arguments)
    assert got.shape == (2, IDS.shape[1] + 4)
    static = model.generate(prompt, **arguments, cache_implementation="static")
    assert static.shape == got.shape


@pytest.mark.parametrize("checkpoint", REAL, ids=lambda path: path.name)
def test_sharded_files(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {f"model-0000{i + 1}-of-00003.safetensors": names[i::3] for i in range(3)}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    index |= {"metadata": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(load(tmp_path)(IDS).logits, load(checkpoint)(IDS).logits)


@pytest.mark.parametrize(
    ("checkpoint", "key"), [(AWQ, "modules_to_not_convert"), (COMPRESSED_TENSORS, "ignore")]
)
def test_a_layer_that_is_not_quantized(checkpoint, key, tmp_path):
    """What the files have decides: a plain weight is loaded as one."""
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    width = tensors[f"{QUANTIZED_LAYERS[4]}.{'scales' if checkpoint == AWQ else 'weight_scale'}"]
    n = width.shape[1] if checkpoint == AWQ else width.shape[0]
    hidden = len(tensors["model.norm.weight"])
    tensors = {name: t for name, t in tensors.items() if not name.startswith(f"{DOWN}.")}
    tensors[f"{DOWN}.weight"] = torch.randn(hidden, n).half() / 32
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"][key] = ["lm_head", "down_proj" if checkpoint == AWQ else DOWN]
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_made(tmp_path, layers=set(QUANTIZED_LAYERS) - {DOWN})


def test_the_dtype_of_the_config_is_the_default_and_float32_becomes_float16(caplog):
    transformers.utils.logging.enable_propagation()
    model = load(GPTQ[0], dtype="auto")
    assert model.dtype == model.model.layers[0].mlp.down_proj.dtype == torch.bfloat16
    assert "float16 scales are rounded to bfloat16" in caplog.text
    model = load(GPTQ[0], dtype=torch.float32)
    assert model.dtype == torch.float16
    assert "torch.float16 instead of torch.float32" in caplog.text


def test_the_base_model_of_a_causal_model():
    whole, base = (
        load(GPTQ[0]),
        transformers.AutoModel.from_pretrained(GPTQ[0], dtype=torch.float16),
    )
    assert {f"model.{name}" for name in quantized(base)} == quantized(whole)
    assert torch.equal(base(IDS).last_hidden_state, whole.model(IDS).last_hidden_state)


def test_compiled_without_a_graph_break():
    torch._dynamo.reset()
    model = load(GPTQ[0])
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for tokens in (5, 9):
            ids = IDS[:, :tokens]
            got = compiled(ids, use_cache=False).logits
            assert torch.equal(got, model(ids, use_cache=False).logits)


def test_saving_is_refused(tmp_path, caplog):
    transformers.utils.logging.enable_propagation()
    with pytest.raises(ValueError, match="is not serializable"):
        load(GPTQ[0]).save_pretrained(tmp_path / "saved")
    assert "save_pretrained: model: got a model of repacked weights" in caplog.text
    assert "copy the original checkpoint" in caplog.text


def test_training_is_refused():
    model = load(GPTQ[0])
    assert not model.hf_quantizer.is_trainable  # what Trainer asks
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(RuntimeError, match="QuantLinear: x: got a tensor that requires grad"):
        model(IDS)


def test_the_config_keeps_its_settings():
    model = load(GPTQ[0])
    want = json.loads((GPTQ[0] / "config.json").read_text())["quantization_config"]
    assert model.config.to_dict()["quantization_config"] == want
    assert json.loads(model.config.to_json_string())["quantization_config"] == want
    assert model.config.quantization_config.bits == 4
    assert model.is_quantized


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{DOWN}.qweight"), f"no '{DOWN}.qweight'"),
        (lambda t: t.pop(f"{DOWN}.qzeros"), f"no '{DOWN}.qzeros'"),
        (lambda t: t[f"{DOWN}.g_idx"].fill_(7), f"'{DOWN}.g_idx': got 7 at row 0"),
        (lambda t: t[f"{DOWN}.scales"].fill_(float("inf")), "scales: got inf at group 0"),
        (
            lambda t: t.update({f"{DOWN}.scales": t[f"{DOWN}.scales"].double()}),
            f"'{DOWN}.scales': got F64",
        ),
    ],
)
def test_damaged_files_are_refused(change, message, tmp_path):
    directory = made_gptq(tmp_path)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=re.escape(message)):
        load(directory)


def test_matrices_fused_in_the_model_alone_are_refused(tmp_path):
    """As GPTQModel writes Phi-3; Transformers would make the fused one up."""
    directory = made_gptq(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "pad_token_id": 0}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"nothing for model.layers.0.mlp.gate_up_proj"):
        load(directory)


def test_a_config_of_other_sizes_is_refused(tmp_path):
    directory = made_gptq(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config["intermediate_size"] = 388
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="as config.json says; check that config.json belongs"):
        load(directory)


def test_other_models_load_as_ever(tmp_path):
    config = transformers.AutoConfig.for_model(
        "qwen2",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not quantized(model)
    model.save_pretrained(tmp_path / "again")
