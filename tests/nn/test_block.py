# SPDX-License-Identifier: Apache-2.0
"""A decode step of a whole decoder layer, made of these layers: compiled without a graph break, and
on a GPU captured as a CUDA graph and replayed over dirty memory."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.checkpoint_files import REAL
from tests.kernels import cuda_skip_reason

_PATH = Path(__file__).parents[2] / "examples" / "decoder_layer.py"
_SPEC = importlib.util.spec_from_file_location("padmarlin_decoder_layer", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_EXAMPLE = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _EXAMPLE  # dataclasses look their module up
_SPEC.loader.exec_module(_EXAMPLE)
DecoderLayer, KeyValueCache, Sizes = (
    _EXAMPLE.DecoderLayer,
    _EXAMPLE.KeyValueCache,
    _EXAMPLE.Sizes,
)

NAN = float("nan")
BATCH, POSITIONS, PROMPT = 3, 24, 7

gpu = pytest.mark.skipif(cuda_skip_reason() is not None, reason=str(cuda_skip_reason()))


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def inputs(layer, tokens: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    hidden = layer.qkv.in_features
    return (
        torch.randn(BATCH, tokens, hidden, generator=generator).half().to(layer.qkv.qweight.device)
    )


def after_prompt(layer):
    """A cache that holds a prompt."""
    cache = KeyValueCache(layer, BATCH, POSITIONS)
    positions = torch.arange(PROMPT, device=cache.keys.device)
    layer(inputs(layer, PROMPT, seed=1), positions, cache)
    return cache


REFUSED = {
    "rope_scaling": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
    "older rope_scaling": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "rope_parameters": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}},
    "Qwen2's window": {"use_sliding_window": True, "sliding_window": 4096},
    "Mistral's window": {"model_type": "mistral", "sliding_window": 4096},
    "a window in some layers": {"layer_types": ["full_attention", "sliding_attention"]},
    "another architecture": {"model_type": "gemma2"},
}
TAKEN = {
    "rope_scaling": {"rope_scaling": None, "rope_theta": 1e6},
    "rope_parameters": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    "Qwen2's unused window": {"use_sliding_window": False, "sliding_window": 32768},
    "Mistral without one": {"model_type": "mistral", "sliding_window": None},
    "Llama with a key that it does not know": {"model_type": "llama", "sliding_window": 4096},
}


def with_config(tmp_path: Path, changes: dict) -> Path:
    config = {"model_type": "qwen2", "num_attention_heads": 2, "hidden_size": 64}
    text = json.dumps(config | {"rms_norm_eps": 1e-6} | changes)
    (tmp_path / "config.json").write_text(text)
    return tmp_path


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_attention_that_it_does_not_compute_is_refused(changes: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"DecoderLayer: '\w+' in config\.json: got .*, expected"):
        Sizes.read(with_config(tmp_path, changes))


@pytest.mark.parametrize("changes", TAKEN.values(), ids=TAKEN)
def test_attention_that_it_computes(changes: dict, tmp_path: Path) -> None:
    assert Sizes.read(with_config(tmp_path, changes)).rope_theta in (1e4, 1e6)


@pytest.mark.parametrize("checkpoint", REAL, ids=lambda path: path.name)
def test_decoding_step_by_step_is_what_all_tokens_at_once_are(checkpoint):
    layer = DecoderLayer(checkpoint)
    x = inputs(layer, PROMPT + 4, seed=1)
    want = layer(x, torch.arange(PROMPT + 4))
    cache = KeyValueCache(layer, BATCH, POSITIONS)
    got = [layer(x[:, :PROMPT], torch.arange(PROMPT), cache)]
    for position in range(PROMPT, PROMPT + 4):
        got.append(layer(x[:, position : position + 1], torch.tensor([position]), cache))
    error = (torch.cat(got, 1).double() - want.double()).norm() / want.double().norm()
    assert error < 2e-3


@pytest.mark.parametrize("checkpoint", [REAL[0], REAL[2]], ids=lambda path: path.name)
def test_compiled_without_a_graph_break(checkpoint):
    torch._dynamo.reset()
    layer = DecoderLayer(checkpoint)
    caches = [after_prompt(layer) for _ in range(2)]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for step in range(3):
        x, position = inputs(layer, 1, seed=step), torch.tensor([PROMPT + step])
        got, want = (
            function(x, position, cache)
            for function, cache in zip((compiled, layer), caches, strict=True)
        )
        assert torch.equal(got, want), step


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("checkpoint", REAL, ids=lambda path: path.name)
def test_a_captured_decode_step_replays_the_same_bits_over_dirty_memory(checkpoint):
    layer = DecoderLayer(checkpoint, device="cuda")
    cache, reference = after_prompt(layer), after_prompt(layer)
    x, position = inputs(layer, 1, seed=0), torch.tensor([PROMPT], device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # the warm-up writes what the first replay writes again
        layer(x, position, cache)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = layer(x, position, cache)
    for step in range(POSITIONS - PROMPT):
        x.copy_(inputs(layer, 1, seed=step))
        position.fill_(PROMPT + step)
        want = layer(x, position, reference)
        junk = [torch.full((1 << 20,), NAN, device="cuda") for _ in range(8)]
        torch.cuda.synchronize()
        del junk
        out.fill_(NAN)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, want), step
    assert torch.equal(cache.keys, reference.keys)


@pytest.mark.gpu
@gpu
def test_compiled_into_cuda_graphs():
    torch._dynamo.reset()
    layer = DecoderLayer(REAL[0], device="cuda")
    cache, reference = after_prompt(layer), after_prompt(layer)
    compiled = torch.compile(layer, fullgraph=True, mode="reduce-overhead")
    for step in range(6):
        x, position = inputs(layer, 1, seed=step), torch.tensor([PROMPT + step], device="cuda")
        got, want = compiled(x, position, cache), layer(x, position, reference)
        error = (got.double() - want.double()).norm() / want.double().norm()
        assert error < 2e-3, step  # the compiler fuses, and so rounds, otherwise
