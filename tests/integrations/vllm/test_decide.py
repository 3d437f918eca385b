# SPDX-License-Identifier: Apache-2.0
"""Which layers are taken: a table, no vLLM. What vLLM really does with them is tried in
tests/integrations/vllm_layers and vllm_engine."""

from __future__ import annotations

import pytest

from padmarlin.engines import Cut
from padmarlin.integrations.vllm.decide import decide, why_experts_fail, why_vllm_fails
from padmarlin.integrations.vllm.mode import Mode

# what, K, N, TP, axis, more -> what the reason says; None: left to vLLM
LAYERS = [
    ("Qwen2-72B down at TP=1", 29568, 8192, 1, "k", {}, None),
    ("Qwen2-72B down at TP=2", 29568, 8192, 2, "k", {}, "115.5 groups"),
    ("Qwen2-72B down at TP=8", 29568, 8192, 8, "k", {}, "28.875 groups"),
    ("Qwen2-72B gate and up", 8192, 59136, 2, "n", {}, None),
    ("whole groups", 14336, 4096, 4, "k", {}, None),
    ("AWQ", 29568, 8192, 2, "k", {"method": "awq"}, "not aligned"),
    ("AWQ, whole groups", 14336, 4096, 2, "k", {"method": "awq"}, None),
    ("compressed-tensors", 29568, 8192, 2, "k", {"method": "compressed-tensors"}, "ValueError"),
    ("act-order", 4096, 4096, 1, "n", {"act_order": True}, "desc_act"),
    ("act-order, one group", 4096, 4096, 2, "k", {"act_order": True, "group_size": -1}, None),
    (
        "act-order, compressed-tensors",
        4096,
        4096,
        1,
        None,
        {"act_order": True, "method": "compressed-tensors"},
        "act-order",
    ),
    ("asymmetric GPTQ", 4096, 4096, 1, "n", {"sym": False}, "asymmetric"),
    ("asymmetric CT", 4096, 4096, 1, "n", {"sym": False, "method": "compressed-tensors"}, None),
    ("ragged last group", 464, 64, 1, "n", {}, "short last group"),
    ("words cut along K", 1032, 64, 2, "k", {"group_size": -1}, "splits a packed"),
    ("words cut along N, nothing packed there", 256, 1032, 2, "n", {}, None),
    ("words cut along N, AWQ", 256, 1032, 2, "n", {"method": "awq"}, "splits a packed"),
    ("tile that fits nothing", 4096, 4104, 1, "n", {}, None),
    ("channelwise", 29568, 8192, 8, "k", {"group_size": -1}, None),
    (
        "groups that Marlin lacks: vLLM itself is asked",
        4096,
        4096,
        1,
        "n",
        {"group_size": 16},
        None,
    ),
]


@pytest.mark.parametrize("what, k, n, tp, axis, more, said", LAYERS, ids=[row[0] for row in LAYERS])
def test_layer(what: str, k: int, n: int, tp: int, axis: str, more: dict, said: str | None) -> None:
    cut = Cut.of(k, n, tp=tp, axis=axis, **more)
    reason = why_vllm_fails(cut)
    assert (reason is None) == (said is None), f"{what}: {reason}"
    assert said is None or said in str(reason)
    assert decide(cut, Mode.AUTO).take == (said is not None)
    assert decide(cut, Mode.ALWAYS).take
    assert not decide(cut, Mode.NEVER).take


def test_reason_of_what_is_taken_without_need() -> None:
    decision = decide(Cut.of(4096, 4096), Mode.ALWAYS)
    assert decision.reason == "all layers are asked for"


def test_experts() -> None:
    straddling = Cut.of(1408, 2048, tp=2, axis="k", experts=True)
    assert "5.5 groups" in str(why_experts_fail(straddling))
    assert "(not verified)" in str(why_experts_fail(straddling))
    assert why_experts_fail(Cut.of(1536, 2048, tp=2, axis="k", experts=True)) is None
