# SPDX-License-Identifier: Apache-2.0
"""Verdicts on the shapes that are known to break, or not to, in models people run."""

from __future__ import annotations

import pytest

from padmarlin import plan
from padmarlin.engines import ENGINES, Cut, Evidence, Outcome, judge

OK, NO, WRONG, DARK = Outcome.ACCEPT, Outcome.REFUSE, Outcome.WRONG, Outcome.UNKNOWN

# Nemotron-3-Nano's are NVFP4, here taken as INT4 of the same groups. Two models have no row: of
# Nemotron-3-Super and Gemma-4-26B only formats broke that this package does not read.
# (what, K, N, group size, TP, axis, more) -> strict Marlin, vLLM, SGLang, what the reason says
SHAPES = [
    ("Qwen2-72B down", 29568, 8192, 128, 2, "k", {}, NO, WRONG, WRONG, "115.5 groups"),
    ("Qwen2-72B down", 29568, 8192, 128, 4, "k", {}, NO, WRONG, WRONG, "57.75 groups"),
    ("Qwen2-72B down", 29568, 8192, -1, 4, "k", {}, NO, OK, DARK, "pads"),
    ("Qwen2-72B down", 29568, 8192, 128, 8, "k", {}, NO, WRONG, WRONG, "28.875 groups"),
    # Its gate_up breaks the 2:4-sparse kernel alone, which wants N % 512 == 0.
    ("Qwen2-72B gate_up", 8192, 59136, 128, 1, "n", {}, OK, OK, OK, ""),
    ("InternVL3-78B-AWQ down", 29568, 8192, 128, 2, "k", {"method": "awq"}, NO, NO, NO, "aligned"),
    ("Qwen2-VL-72B down", 29568, 8192, 128, 2, "k", {}, NO, WRONG, WRONG, "115.5"),
    ("Qwen-14B down", 13696, 5120, 128, 2, "k", {}, NO, WRONG, WRONG, "53.5"),
    ("GLM-4-9B down", 13696, 4096, 128, 2, "k", {}, NO, WRONG, WRONG, "53.5"),
    ("Qwen1.5-32B down", 27392, 5120, 128, 4, "k", {}, NO, WRONG, WRONG, "53.5"),
    ("Qwen2.5-7B down", 18944, 3584, 128, 8, "k", {}, NO, WRONG, WRONG, "18.5"),
    ("Qwen2.5-0.5B o_proj", 896, 896, 128, 2, "k", {}, NO, WRONG, WRONG, "3.5"),
    ("Llama-2-7B down", 11008, 4096, 128, 4, "k", {}, NO, WRONG, WRONG, "21.5"),
    ("Llama-2-13B down", 13824, 5120, 128, 8, "k", {}, NO, WRONG, WRONG, "13.5"),
    ("DeepSeek-V2-Lite", 10944, 2048, 64, 1, "k", {"method": "awq"}, NO, OK, NO, ""),
    ("DeepSeek-V2-Lite", 10944, 2048, 64, 2, "k", {"method": "awq"}, NO, NO, NO, "85.5"),
    ("GLM-4.5-Air down", 10944, 4096, 128, 1, "k", {}, NO, NO, DARK, "85.5"),
    ("dots1 down", 10944, 4608, 128, 1, "k", {"method": "awq"}, NO, NO, NO, "85.5"),
    ("GLM-4.5-Air experts", 1408, 4096, 128, 2, "k", {"experts": True}, NO, DARK, DARK, "5.5"),
    ("Qwen1.5-MoE experts", 1408, 2048, 128, 2, "k", {"experts": True}, NO, DARK, DARK, "5.5"),
    ("Qwen3-30B-A3B experts", 768, 2048, 128, 4, "k", {"experts": True}, NO, DARK, DARK, "1.5"),
    ("Qwen3-235B experts", 1536, 4096, 128, 8, "k", {"experts": True}, NO, DARK, DARK, "1.5"),
    (
        "DeepSeek-Coder-V2 experts",
        1536,
        5120,
        128,
        8,
        "k",
        {"experts": True},
        NO,
        DARK,
        DARK,
        "1.5",
    ),
    (
        "Nemotron-3-Nano experts",
        1856,
        2688,
        16,
        4,
        "k",
        {"experts": True},
        NO,
        DARK,
        DARK,
        "groups of 16",
    ),
    ("Nemotron-3-Nano experts", 1856, 2688, 16, 8, "k", {"experts": True}, NO, NO, DARK, "14.5"),
    ("gpt-oss", 2880, 2880, 32, 1, "k", {}, NO, OK, DARK, "pads"),
    (
        "DeepSeek-V4.1-Flash experts",
        2304,
        4096,
        32,
        8,
        "k",
        {"experts": True},
        NO,
        OK,
        DARK,
        "pads",
    ),
    ("Qwen3.5-27B in_proj_ba", 5120, 96, 128, 1, "n", {}, NO, OK, DARK, "pads"),
    ("Qwen3.5-27B in_proj_ba", 5120, 96, 128, 2, "n", {}, NO, OK, DARK, "pads"),
    ("Qwen3.5-397B in_proj_ba", 4096, 128, 128, 4, "n", {}, NO, OK, DARK, "pads"),
    ("Qwen3.6-35B-A3B in_proj_ba", 2048, 64, 128, 2, "n", {}, NO, OK, DARK, "pads"),
    ("Falcon-7B dense", 4544, 4544, 64, 1, "k", {}, NO, OK, DARK, "pads"),
    ("Qwen2.5-VL vision down", 3420, 1280, -1, 1, "k", {}, NO, DARK, DARK, "packed"),
    ("Qwen2.5-VL vision gate", 1280, 3420, 128, 1, "n", {}, NO, DARK, DARK, "packed"),
    ("Qwen3-VL vision fc2", 4304, 1152, 32, 2, "k", {}, NO, WRONG, WRONG, "67.25"),
    ("Mixtral-8x7B down", 14336, 4096, 128, 8, "k", {"experts": True}, OK, OK, OK, ""),
    ("Phi-3-mini down", 8192, 3072, 128, 8, "k", {}, OK, OK, OK, ""),
    # Padded before it was quantized, as the official files are.
    ("Qwen2-72B padded", 29696, 8192, 128, 8, "k", {}, OK, OK, OK, ""),
]


@pytest.mark.parametrize(
    ("what", "k", "n", "group_size", "tp", "axis", "more", "marlin", "vllm", "sglang", "says"),
    SHAPES,
    ids=[f"{row[0]}-tp{row[4]}-g{row[3]}" for row in SHAPES],
)
def test_verdicts(
    what: str, k: int, n: int, group_size: int, tp: int, axis: str, more: dict[str, bool],
    marlin: Outcome, vllm: Outcome, sglang: Outcome, says: str,
) -> None:  # fmt: skip
    cut = Cut.of(k, n, group_size=group_size, tp=tp, axis=axis, **more)
    found = {engine: judge(engine, cut) for engine in ENGINES}
    assert {engine: verdict.outcome for engine, verdict in found.items()} == {
        "marlin": marlin,
        "vllm": vllm,
        "sglang": sglang,
    }
    assert says in found["vllm"].reason
    planned = plan(k, n, group_size=group_size, tp=tp, axis=axis)
    assert planned.strict_marlin == (marlin is OK)
    if marlin is NO:
        assert found["marlin"].reason == "; ".join(planned.ranks[0].reasons)


@pytest.mark.parametrize(
    ("changes", "vllm", "says"),
    [
        ({"act_order": True}, NO, "desc_act"),
        ({"act_order": True, "group_size": -1}, OK, ""),  # one group: nothing to order
        ({"act_order": True, "method": "compressed-tensors"}, DARK, "not verified"),
        ({"sym": False}, NO, "sym=False"),
        ({"sym": False, "method": "awq"}, OK, ""),
        ({"group_size": 256}, DARK, "groups of 256"),
        ({"bits": 8}, OK, ""),
    ],
)
def test_vllm_on_settings(changes: dict[str, object], vllm: Outcome, says: str) -> None:
    verdict = judge("vllm", Cut.of(4096, 4096, **changes))  # type: ignore[arg-type]
    assert verdict.outcome is vllm
    assert says in verdict.reason


@pytest.mark.parametrize(
    ("changes", "sglang"),
    [
        ({"act_order": True}, OK),
        ({"act_order": True, "tp": 2}, DARK),
        ({"act_order": True, "tp": 2, "axis": "n"}, OK),
        ({"act_order": True, "tp": 2, "axis": "n", "experts": True}, DARK),
        ({"sym": False}, DARK),
        ({"group_size": 256}, NO),
    ],
)
def test_sglang_on_settings(changes: dict[str, object], sglang: Outcome) -> None:
    assert judge("sglang", Cut.of(4096, 4096, **changes)).outcome is sglang  # type: ignore[arg-type]


def test_compressed_tensors_straddle_raises() -> None:
    verdict = judge("vllm", Cut.of(29568, 8192, tp=2, method="compressed-tensors"))
    assert verdict.outcome is NO
    assert "verify_group_size_divides_partition" in verdict.reason


def test_compressed_tensors_experts_are_not_verified() -> None:
    cut = Cut.of(768, 2048, tp=4, method="compressed-tensors", experts=True)
    assert judge("vllm", cut).outcome is DARK


def test_experts_of_an_odd_hidden_size() -> None:
    cut = Cut.of(768, 2112, experts=True)
    assert "hidden size" in judge("vllm", cut).reason


def test_awq_splits_no_words() -> None:
    assert judge("vllm", Cut.of(4096, 4 * 100, tp=4, axis="n", method="awq")).outcome is NO


@pytest.mark.parametrize("engine", ENGINES)
def test_facts_say_how_they_are_known(engine: str) -> None:
    for fact in ENGINES[engine].facts:
        assert fact.versions
        assert fact.source or fact.evidence is Evidence.NONE
        if fact.outcome is not Outcome.ACCEPT:
            assert fact.reason
        if fact.evidence is Evidence.NONE:
            assert fact.outcome is Outcome.UNKNOWN
            assert "not verified" in fact.reason


def test_a_wrong_answer_is_never_claimed_without_evidence() -> None:
    claims = [f for e in ENGINES.values() for f in e.facts if f.outcome is Outcome.WRONG]
    assert {fact.evidence for fact in claims} == {Evidence.RUN, Evidence.REPORTED}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k: got 0"),
        ({"k": 100, "tp": 3}, "a multiple of tp = 3"),
        ({"bits": 3}, "bits: got 3"),
        ({"method": "hqq"}, "method: got 'hqq'"),
        ({"axis": "m"}, "axis: got 'm'"),
    ],
)
def test_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cut.of(**{"k": 4096, "n": 4096, **arguments})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="engine: got 'tgi'"):
        judge("tgi", Cut.of(4096, 4096))
