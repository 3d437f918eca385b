# SPDX-License-Identifier: Apache-2.0
"""Whole models in vLLM's engine on the CPU, TP 1 and 2: prompt log-probabilities against what the
checkpoint's own quantizer says, and what vLLM does without the plugin. Half a minute each; needs
the CPU build (`make test-vllm-engine`)."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm-engine")
if importlib.util.find_spec("vllm._C") is None:
    pytest.skip("vLLM without its CPU kernels: make test-vllm-engine", allow_module_level=True)

from tests import oracle
from tests.integrations.vllm_engine.engine import (
    Answer,
    EngineError,
    ask,
    log_softmax,
    of_the_prompts,
)
from tests.integrations.vllm_engine.made import make_checkpoint

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
TOLERANCE = 0.01
VOCABULARY = 512

AUTO, NEVER = "auto", "never"


def ask_about(folder: Path, name: str, tp: int, mode: str = AUTO, **options: Any) -> Answer:
    prompts = np.load(CHECKPOINTS / name / "reference.npz")["input_ids"]
    return ask(folder, CHECKPOINTS / name, prompts, VOCABULARY, tp, mode, **options)


def error_of(name: str, answer: Answer) -> float:
    """The largest difference among the log-probabilities of the prompts' tokens."""
    reference = np.load(CHECKPOINTS / name / "reference.npz")
    prompts = reference["input_ids"]
    wanted = of_the_prompts(log_softmax(reference["logits"]), prompts)
    return float(np.abs(of_the_prompts(answer.logprobs, prompts) - wanted).max())


@pytest.mark.parametrize(
    "name, tp, taken",
    [
        ("gptq4_g128_sym_i384", 2, "takes 1 of 4"),
        ("gptq4_g64_asym_desc_v2_i1344", 1, "takes 4 of 4"),
        ("gptq4_g32_asym_zero0_i384", 1, "takes 4 of 4"),
        ("gptq4_g32_asym_zero0_i384", 2, "takes 4 of 4"),
        ("gptq8_g128_sym_i384", 1, "takes 4 of 4"),
        ("gptq8_g128_sym_i384", 2, "takes 3 of 4"),
        ("ct_w4a16_g128_sym_i384", 2, "takes 1 of 4"),
    ],
)
def test_checkpoint(tmp_path: Path, name: str, tp: int, taken: str) -> None:
    answer = ask_about(tmp_path, name, tp)
    assert answer.lines[0].startswith(taken), answer.lines
    assert error_of(name, answer) < TOLERANCE


def test_compiled(tmp_path: Path) -> None:
    name = "gptq4_g128_sym_i384"
    assert error_of(name, ask_about(tmp_path, name, 2, enforce_eager=False)) < TOLERANCE


def test_all_layers_by_name(tmp_path: Path) -> None:
    """--quantization padmarlin. The reference of this one is bfloat16's, so vLLM's own answer at
    TP=1 is what padmarlin's is held to."""
    name = "awq4_g64_i1344"
    (tmp_path / "own").mkdir()
    own = ask_about(tmp_path / "own", name, 1, NEVER)
    mine = ask_about(tmp_path, name, 1, quantization="padmarlin")
    assert mine.lines[0].startswith("takes 4 of 4")
    assert np.abs(mine.logprobs - own.logprobs).max() < TOLERANCE


def test_without_the_plugin_a_straddling_cut_is_wrong(tmp_path: Path) -> None:
    name = "gptq4_g128_sym_i384"
    assert error_of(name, ask_about(tmp_path, name, 2, NEVER)) > 0.2


@pytest.mark.parametrize(
    "name, tp, said",
    [
        ("gptq4_g64_asym_desc_v2_i1344", 1, "desc_act=True"),
        ("gptq4_g32_asym_zero0_i384", 1, "sym=False"),
        ("ct_w4a16_g128_sym_i384", 2, "not divisible by group_size=128"),
    ],
)
def test_without_the_plugin_vllm_refuses(tmp_path: Path, name: str, tp: int, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        ask_about(tmp_path, name, tp, NEVER)


@pytest.mark.parametrize("name", ["gptq4_g128_sym_i384", "ct_w4a16_g128_sym_i384"])
def test_what_is_left_to_vllm_is_its_own_bit_for_bit(tmp_path: Path, name: str) -> None:
    answers = []
    for mode in (AUTO, NEVER):
        (tmp_path / mode).mkdir()
        answers.append(ask_about(tmp_path / mode, name, 1, mode))
    assert answers[0].lines[0].startswith("leaves all 4")
    assert answers[1].lines == []
    assert np.array_equal(answers[0].logprobs, answers[1].logprobs)
    assert np.array_equal(answers[0].tokens, answers[1].tokens)


def gptq_settings(bits: int, group_size: int, **more: Any) -> dict[str, Any]:
    settings = {"quant_method": "gptq", "bits": bits, "group_size": group_size, "sym": False}
    return {**settings, "desc_act": False, "checkpoint_format": "gptq", **more}


ACT_ORDER = partial(oracle.random_gptq, group_size=64, symmetric=False, act_order=True)
EIGHT_BITS = partial(oracle.random_gptq, bits=8, symmetric=False, largest_scale=0.001)
MADE = {
    # intermediate size, KV heads, layers, settings; 1032 at TP=2 is 516 rows: half a word
    "act-order, v2, words cut": (
        1032,
        2,
        partial(ACT_ORDER, checkpoint_format="gptq_v2"),
        gptq_settings(4, 64, desc_act=True, checkpoint_format="gptq_v2"),
    ),
    "act-order, symmetric, one KV head": (
        384,
        1,
        partial(oracle.random_gptq, act_order=True),
        gptq_settings(4, 128, desc_act=True, sym=True),
    ),
    "8 bits, zero points of 0, ragged": (464, 2, EIGHT_BITS, gptq_settings(8, 128)),
    "8 bits, words cut": (
        1036,
        2,
        partial(EIGHT_BITS, group_size=32),
        gptq_settings(8, 32),
    ),
    "symmetric, ragged": (464, 2, oracle.random_gptq, gptq_settings(4, 128, sym=True)),
    "AWQ, straddling": (
        384,
        2,
        oracle.random_awq,
        {
            "quant_method": "awq",
            "bits": 4,
            "group_size": 128,
            "zero_point": True,
            "version": "gemm",
        },
    ),
    "AWQ without zero points, straddling": (
        384,
        2,
        partial(oracle.random_awq, symmetric=True),
        {
            "quant_method": "awq",
            "bits": 4,
            "group_size": 128,
            "zero_point": False,
            "version": "gemm",
        },
    ),
}


def written(folder: Path, what: str, seed: int = 0, **more: Any) -> tuple[np.ndarray, np.ndarray]:
    """(prompts, logits) of a made checkpoint."""
    intermediate, kv_heads, make, settings = MADE[what]
    return make_checkpoint(folder, seed, intermediate, kv_heads, make, settings, **more)


def largest_error(answer: Answer, prompts: np.ndarray, logits: np.ndarray) -> float:
    wanted = of_the_prompts(log_softmax(logits), prompts)
    return float(np.abs(of_the_prompts(answer.logprobs, prompts) - wanted).max())


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("what", list(MADE))
def test_made_checkpoint(tmp_path: Path, what: str, tp: int) -> None:
    folder = tmp_path / "checkpoint"
    prompts, logits = written(folder, what)
    answer = ask(tmp_path, folder, prompts, VOCABULARY, tp, AUTO)
    error = largest_error(answer, prompts, logits)
    assert error < TOLERANCE, f"{what} at TP={tp}: {error}; {answer.lines}"


@pytest.mark.parametrize("tp", [1, 2])
def test_lora(tmp_path: Path, tp: int) -> None:
    """An adapter on layers in act-order that are cut inside words and groups, and on fused ones."""
    folder, adapter = tmp_path / "checkpoint", tmp_path / "adapter"
    prompts, logits = written(folder, "act-order, v2, words cut", adapter=adapter)
    options: dict[str, Any] = {"enable_lora": True, "max_lora_rank": 8}
    answer = ask(tmp_path, folder, prompts, VOCABULARY, tp, AUTO, adapter=adapter, **options)
    assert answer.lines[0].startswith("takes 8 of 8"), answer.lines
    # Transformers in fp16, adapter merged, is off by 0.011; the adapter itself makes 7.5.
    assert largest_error(answer, prompts, logits) < 3 * TOLERANCE


def test_pipeline(tmp_path: Path) -> None:
    """Two stages of one block each. Compiled: in eager mode vLLM's pipelines fail on the CPU, with
    any model (its buffers between stages are made in the warm-up that only compilation has)."""
    folder = tmp_path / "checkpoint"
    prompts, logits = written(folder, "8 bits, zero points of 0, ragged")
    options = {"pipeline_parallel_size": 2, "enforce_eager": False}
    answer = ask(tmp_path, folder, prompts, VOCABULARY, 1, AUTO, **options)
    assert [line[:12] for line in answer.lines] == ["takes 4 of 4"] * 2
    assert largest_error(answer, prompts, logits) < TOLERANCE


@pytest.mark.parametrize(
    "what, eager", [("8 bits, zero points of 0, ragged", False), ("symmetric, ragged", True)]
)
def test_reloaded_weights(tmp_path: Path, what: str, eager: bool) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    written(first, what, seed=1)
    prompts, logits = written(second, what, seed=2)
    options = {"reload": second, "enforce_eager": eager}
    answer = ask(tmp_path, first, prompts, VOCABULARY, 2, AUTO, **options)
    assert largest_error(answer, prompts, logits) < TOLERANCE


def test_quantized_draft_model(tmp_path: Path) -> None:
    target, draft = tmp_path / "target", tmp_path / "draft"
    prompts, logits = written(target, "8 bits, zero points of 0, ragged")
    written(draft, "AWQ without zero points, straddling", seed=1)
    alone = ask(tmp_path, target, prompts, VOCABULARY, 1, AUTO)
    speculative = {"model": str(draft), "num_speculative_tokens": 2}
    answer = ask(tmp_path, target, prompts, VOCABULARY, 1, "always", speculative_config=speculative)
    assert [line[:12] for line in answer.lines] == ["takes 8 of 8"] * 2
    assert "draft_model" in answer.lines[1]
    assert largest_error(answer, prompts, logits) < TOLERANCE
    assert np.array_equal(answer.tokens, alone.tokens)


def test_bfloat16(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    prompts, logits = written(folder, "symmetric, ragged")
    options = {"dtype": "bfloat16", "quantization": "padmarlin"}
    answer = ask(tmp_path, folder, prompts, VOCABULARY, 2, AUTO, **options)
    # bfloat16 has 8 bits where float16 has 11.
    assert largest_error(answer, prompts, logits) < 8 * TOLERANCE
