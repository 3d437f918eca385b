# SPDX-License-Identifier: Apache-2.0
"""Experts get what vLLM gives them, and trouble with their cut is logged by name."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

from tests.integrations.vllm_layers.ranks import RankError

NAME = "model.layers.5.mlp.experts"
WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}
SETTINGS: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
    "awq, symmetric": {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 128,
        "zero_point": False,
    },
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": WEIGHTS}},
        "ignore": [],
    },
}


def experts(config: Any, intermediate: int, tp: int) -> tuple[object, list[str]]:
    """(the method that an expert layer gets, what was logged)."""
    from vllm.model_executor.layers.fused_moe import RoutedExperts

    from padmarlin.integrations.vllm.log import logger

    layer = RoutedExperts.__new__(RoutedExperts)
    object.__setattr__(layer, "ckpt_down_proj_name", "down_proj")
    object.__setattr__(
        layer,
        "moe_config",
        SimpleNamespace(
            hidden_dim=2048,
            intermediate_size_per_partition_unpadded=intermediate // tp,
            moe_parallel_config=SimpleNamespace(tp_size=tp),
        ),
    )
    lines: list[str] = []
    with mock.patch.object(logger, "warning", lambda text, *more: lines.append(text % more)):
        return config.get_quant_method(layer, NAME), lines


def chosen(written: str, mode: str, intermediate: int, tp: int, **settings: Any) -> Any:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.quantization import get_quantization_config

    config = get_quantization_config(mode).from_config({**SETTINGS[written], **settings})
    own = type(config).__mro__[2]  # behind padmarlin's class and its mixin: vLLM's
    with (
        set_current_vllm_config(VllmConfig()),
        mock.patch.object(own, "get_quant_method", return_value="vLLM's"),
    ):
        return experts(config, intermediate, tp)


@pytest.mark.parametrize("mode", ["padmarlin-auto", "padmarlin"])
@pytest.mark.parametrize("written", list(SETTINGS))
def test_straddling_experts_are_named_and_left(ranks_of, written: str, mode: str) -> None:
    ((method, lines),) = ranks_of(1).run(chosen, written, mode, 1408, 2)
    assert method == "vLLM's"
    (line,) = lines
    assert line.startswith(f"padmarlin: {NAME} (down) is left to vLLM, padmarlin has no kernel")
    assert "K per rank 704 is 5.5 groups of 128" in line


@pytest.mark.parametrize("written", list(SETTINGS))
def test_nothing_is_said_of_experts_that_fit(ranks_of, written: str) -> None:
    ((method, lines),) = ranks_of(1).run(chosen, written, "padmarlin-auto", 1536, 2)
    assert (method, lines) == ("vLLM's", [])


def test_experts_in_act_order_are_refused_by_name(ranks_of) -> None:
    """vLLM refuses the model; left to it without its act-order they would be wrong."""
    groups = {"group_0": {"targets": ["Linear"], "weights": {**WEIGHTS, "actorder": "group"}}}
    with pytest.raises(RankError, match=f"actorder of {NAME}.0.down_proj: got group"):
        ranks_of(1).run(
            partial(chosen, config_groups=groups), "compressed-tensors", "padmarlin-auto", 1536, 2
        )


def test_ignored_experts_are_not_spoken_of(ranks_of) -> None:
    ignoring = partial(chosen, ignore=["re:.*experts.*"])
    ((_, lines),) = ranks_of(1).run(ignoring, "compressed-tensors", "padmarlin-auto", 1408, 2)
    assert lines == []
