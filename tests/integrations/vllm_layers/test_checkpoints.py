# SPDX-License-Identifier: Apache-2.0
"""The real checkpoints of tests/checkpoints, layer by layer, against what their quantizers say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")
from safetensors import safe_open

from tests.integrations.vllm_layers import cases, layers

CHECKPOINTS = sorted((Path(__file__).parents[2] / "checkpoints").glob("*_*"))
PARENT = "model.layers.0"
LAYERS = {
    "down_proj": ("row", ["mlp.down_proj"]),
    "gate_up_proj": ("gate_up", ["mlp.gate_proj", "mlp.up_proj"]),
    "qkv_proj": ("qkv", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    "o_proj": ("row", ["self_attn.o_proj"]),
}


def layer_of(checkpoint: Path, name: str) -> layers.Case:
    kind, modules = LAYERS[name]
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        keys = list(file.keys())
        tensors = [
            {
                key.removeprefix(f"{PARENT}.{module}."): file.get_tensor(key)
                for key in keys
                if key.startswith(f"{PARENT}.{module}.") and not key.endswith(".bias")
            }
            for module in modules
        ]
    reference = np.load(checkpoint / "reference.npz")
    answers = [reference[f"{PARENT}.{module}|y_nobias"] for module in modules]
    settings = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    return layers.Case(
        kind=kind,
        k=reference[f"{PARENT}.{modules[0]}|x"].shape[1],
        n=tuple(y.shape[1] for y in answers),
        settings=settings,
        tensors=tuple(tensors),
        x=torch.empty(0),
        method="padmarlin",
        name=f"{PARENT}.{modules[0].split('.')[0]}.{name}",
        mapping={"qkv_proj": ["q_proj", "k_proj", "v_proj"]},
    )


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize("name", list(LAYERS))
@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.name)
def test_layer_of_a_checkpoint(ranks_of, checkpoint: Path, name: str, tp: int) -> None:
    case = layer_of(checkpoint, name)
    if name == "qkv_proj" and case.n[0] // layers.HEAD % tp:
        pytest.skip(f"{case.n[0] // layers.HEAD} heads over {tp} ranks")
    reference = np.load(checkpoint / "reference.npz")
    # Each matrix has activations of its own; of the fused answer its columns count then.
    for index, module in enumerate(LAYERS[name][1]):
        case = replace(case, x=torch.from_numpy(reference[f"{PARENT}.{module}|x"]))
        wanted = [torch.zeros(len(case.x), n, dtype=torch.float64) for n in case.n]
        wanted[index] = torch.from_numpy(reference[f"{PARENT}.{module}|y_nobias"]).double()
        for rank, outcome in enumerate(ranks_of(tp).run(layers.run, case)):
            assert outcome.method == "PadmarlinLinearMethod"
            expected = cases.of_rank(case, wanted, rank, tp)
            own = expected.any(0)
            what = f"{module}, rank {rank} of {tp}"
            cases.assert_close(outcome.y[:, own], expected[:, own], what)
