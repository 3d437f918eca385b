# SPDX-License-Identifier: Apache-2.0
"""How vLLM finds the plugin, and what becomes of settings, names and tied weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

from tests.integrations.vllm_layers import cases, layers
from tests.integrations.vllm_layers.ranks import RankError

MINE, OWN = "PadmarlinLinearMethod", "AutoGPTQLinearMethod"
NAME = "model.layers.3.mlp.down_proj"


def asymmetric(kind: str = "row", *sizes: int, **settings: Any) -> layers.Case:
    k, *n = sizes or (256, 64)
    case, _ = cases.gptq(0, kind, k, *n, symmetric=False)
    return replace(case, name=NAME, settings={**case.settings, **settings})


def method_of(case: layers.Case) -> str:
    return type(layers.build(case).quant_method).__name__


def found(settings: dict[str, Any], user: str | None, mode: str) -> list[str | None]:
    import os

    from vllm.model_executor.layers.quantization import get_quantization_config

    os.environ["PADMARLIN_VLLM"] = mode
    try:
        return [
            get_quantization_config(name).override_quantization_method(settings, user, None)
            for name in ("padmarlin", "padmarlin-auto")
        ]
    finally:
        del os.environ["PADMARLIN_VLLM"]


@pytest.mark.parametrize(
    "user, mode, answers",
    [
        (None, "auto", [None, "padmarlin-auto"]),
        ("gptq_marlin", "auto", [None, "padmarlin-auto"]),
        (None, "always", [None, "padmarlin"]),
        ("padmarlin", "auto", ["padmarlin", None]),
        ("awq", "auto", [None, None]),
        ("moe_wna16", "always", [None, None]),
    ],
)
def test_who_answers_for_a_model(ranks_of, user, mode, answers) -> None:
    assert ranks_of(1).run(found, asymmetric().settings, user, mode) == [answers]


def test_other_formats_are_not_answered_for(ranks_of) -> None:
    assert ranks_of(1).run(found, {"quant_method": "fp8"}, None, "always") == [[None, None]]


def test_registering_again_changes_nothing(ranks_of) -> None:
    assert ranks_of(1).run(_registered_twice) == [True]


def _registered_twice() -> bool:
    from vllm.model_executor.layers import linear
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    from padmarlin.integrations.vllm import register

    before = list(QUANTIZATION_METHODS), list(linear.WEIGHT_LOADER_V2_SUPPORTED)
    register()
    return before == (list(QUANTIZATION_METHODS), list(linear.WEIGHT_LOADER_V2_SUPPORTED))


@pytest.mark.parametrize(
    "dynamic, method",
    [
        ({"-:.*down_proj": {}}, "UnquantizedLinearMethod"),
        ({r"+:.*layers\.3\..*": {"sym": False}}, MINE),
        ({r".*layers\.3\..*": {"desc_act": True}}, MINE),
        ({r".*layers\.4\..*": {"group_size": 64}}, OWN),
    ],
)
def test_dynamic(ranks_of, dynamic: dict[str, Any], method: str) -> None:
    assert ranks_of(1).run(layers.build_and_say, asymmetric(sym=True, dynamic=dynamic)) == [method]


def test_dynamic_bits(ranks_of) -> None:
    case, read = cases.gptq(0, "row", 384, 64, bits=8, symmetric=False)
    settings = {**case.settings, "bits": 4, "dynamic": {r".*\.3\..*": {"bits": 8}}}
    case = replace(case, name=NAME, settings=settings)
    for outcome in ranks_of(2).run(layers.run, case):
        cases.assert_close(outcome.y, cases.expected(case, read)[0], "8 bits by a dynamic rule")


def gate_up(dynamic: dict[str, Any], *, group_size: int = 64) -> tuple[layers.Case, list[Any]]:
    """A fused layer of groups of 64; the rules, the model's own group size."""
    case, read = cases.gptq(0, "gate_up", 256, 64, 64, group_size=64)
    return replace(
        case,
        name="model.layers.0.mlp.gate_up_proj",
        mapping={"gate_up_proj": ["gate_proj", "up_proj"]},
        settings={**case.settings, "group_size": group_size, "dynamic": dynamic},
    ), read


def test_dynamic_rules_of_the_matrices_that_vllm_fuses(ranks_of) -> None:
    """As quantizers write them, by the checkpoint's names: vLLM looks for gate_up_proj alone."""
    case, read = gate_up({r"+:.*\.(gate|up)_proj": {"group_size": 64}}, group_size=128)
    for rank, outcome in enumerate(ranks_of(2).run(layers.run, case)):
        wanted = cases.of_rank(case, cases.expected(case, read), rank, 2)
        cases.assert_close(outcome.y, wanted, "a group size by a rule")


@pytest.mark.parametrize(
    "dynamic, method",
    [
        ({r"-:.*\.(gate|up)_proj": {}}, "UnquantizedLinearMethod"),
        # what says nothing of the coding, and rules for the fused name, are as they are in vLLM
        ({r"+:.*\.gate_proj": {"mse": 2.4}}, OWN),
        ({r"+:.*\.gate_up_proj": {"bits": 4}, r"-:.*\.gate_proj": {}}, OWN),
    ],
)
def test_methods_by_rules_of_fused_matrices(ranks_of, dynamic, method) -> None:
    assert ranks_of(1).run(layers.build_and_say, gate_up(dynamic)[0]) == [method]


@pytest.mark.parametrize("rule", [{"-:.*gate_proj": {}}, {"+:.*gate_proj": {"bits": 8}}])
def test_rules_that_part_what_vllm_fuses_are_refused(ranks_of, rule: dict[str, Any]) -> None:
    with pytest.raises(RankError, match="dynamic rules for model.layers.0.mlp.gate_up_proj: got"):
        ranks_of(1).run(layers.build_and_say, gate_up(rule)[0])


@pytest.mark.parametrize(
    "modules, method",
    [
        ([["mlp.down_proj"]], MINE),
        (["self_attn.q_proj"], "UnquantizedLinearMethod"),
        ([NAME], MINE),
    ],
)
def test_modules_in_block_to_quantize(ranks_of, modules: list[Any], method: str) -> None:
    case = asymmetric(modules_in_block_to_quantize=modules)
    assert ranks_of(1).run(layers.build_and_say, case) == [method]


def test_names_of_fused_layers(ranks_of) -> None:
    """vLLM refuses a fused layer of which only a part is quantized; so does the plugin."""
    case = asymmetric("gate_up", 256, 64, 64, modules_in_block_to_quantize=["mlp.gate_proj"])
    case = replace(
        case,
        name="model.layers.0.mlp.gate_up_proj",
        mapping={"gate_up_proj": ["gate_proj", "up_proj"]},
    )
    with pytest.raises(RankError, match="some but not all shards"):
        ranks_of(1).run(layers.build_and_say, case)


@pytest.mark.parametrize("quantized, method", [(True, MINE), (False, "UnquantizedEmbeddingMethod")])
def test_lm_head(ranks_of, quantized: bool, method: str) -> None:
    case = asymmetric("lm_head", 256, 512, lm_head=quantized)
    assert ranks_of(1).run(layers.build_and_say, case) == [method]


def test_tied_lm_head_is_the_embedding(ranks_of) -> None:
    assert ranks_of(2).run(_tied, asymmetric("lm_head", 256, 512)) == [True, True]


def _tied(case: layers.Case) -> bool:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    with set_current_vllm_config(VllmConfig()):
        torch.set_default_dtype(torch.float16)
        head = layers.build(case)
        torch.set_default_dtype(torch.float32)
        embedding = VocabParallelEmbedding(512, 256, params_dtype=torch.float16)
        embedding.weight.data.normal_()
        tied = head.tie_weights(embedding)
        tied.quant_method.process_weights_after_loading(tied)
        x = torch.randn(3, 256, dtype=torch.float16)
        y = tied.quant_method.apply(tied, x)
    names = [name for name, _ in tied.named_parameters()]
    return names == ["weight"] and torch.allclose(y, x @ embedding.weight.T, atol=0.1)


def test_float32_is_refused_by_name(ranks_of) -> None:
    case = asymmetric()
    with pytest.raises(RankError, match=rf"dtype of {NAME}: got torch.float32, expected float16"):
        ranks_of(1).run(layers.run, replace(case, x=case.x.float()))


def test_missing_g_idx_is_refused_by_name(ranks_of) -> None:
    case, _ = cases.gptq(0, "row", 256, 64, act_order=True)
    (tensors,) = case.tensors
    without = {name: value for name, value in tensors.items() if name != "g_idx"}
    with pytest.raises(RankError, match=rf"g_idx of {NAME}: got none"):
        ranks_of(1).run(layers.run, replace(case, name=NAME, tensors=(without,)))


def test_dummy_weights(ranks_of) -> None:
    case, _ = cases.gptq(0, "row", 256, 64, act_order=True, symmetric=False)
    assert ranks_of(1).run(_dummy, case) == [True]


def _dummy(case: layers.Case) -> bool:
    from vllm.config import LoadConfig, VllmConfig, set_current_vllm_config

    with set_current_vllm_config(VllmConfig(load_config=LoadConfig(load_format="dummy"))):
        torch.set_default_dtype(torch.float16)
        layer = layers.build(case)
        torch.set_default_dtype(torch.float32)
        layer.scales.data.fill_(1e-9)
        layer.quant_method.process_weights_after_loading(layer)
        return bool(layer(case.x)[0].isfinite().all())


def test_tensors_of_another_layer_are_refused_by_name(ranks_of) -> None:
    case, other = asymmetric(), asymmetric("row", 512, 64)
    with pytest.raises(
        RankError, match=rf"codes of {NAME}: got shape \(64, 64\), expected K = 256"
    ):
        ranks_of(1).run(layers.run, replace(case, tensors=other.tensors))


def test_unset_g_idx_of_compressed_tensors_means_in_order(ranks_of) -> None:
    case, read = cases.compressed_tensors(0, "row", 384, 64, act_order=True)
    (tensors,) = case.tensors
    unset = {**tensors, "weight_g_idx": torch.full_like(tensors["weight_g_idx"], -1)}
    in_order = [replace(read[0], weight_g_idx=None)]
    for outcome in ranks_of(2).run(layers.run, replace(case, tensors=(unset,))):
        cases.assert_close(outcome.y, cases.expected(case, in_order)[0], "unset")


@pytest.mark.parametrize(
    "settings, kept",
    [
        ({"desc_act": False}, False),
        ({"desc_act": True}, True),
        ({"desc_act": True, "group_size": -1}, False),
        ({"dynamic": {r".*\.3\..*": {"desc_act": True}}}, True),
        ({"dynamic": {r".*\.3\..*": {"desc_act": True, "group_size": -1}}}, False),
        ({"group_size": -1, "dynamic": {r".*\.3\..*": {"desc_act": True}}}, False),
    ],
)
def test_g_idx_is_read_where_it_matters(ranks_of, settings: dict[str, Any], kept: bool) -> None:
    ((dense, expert),) = ranks_of(1).run(_read, {**asymmetric().settings, **settings})
    assert (dense, expert) == (kept, False)


def _read(settings: dict[str, Any]) -> tuple[bool, bool]:
    from vllm.model_executor.layers.quantization import get_quantization_config

    config = get_quantization_config("padmarlin-auto").from_config(settings)
    mapper = config.get_checkpoint_weight_mapper()
    names = ("model.layers.3.mlp.down_proj.g_idx", "model.layers.3.mlp.experts.7.up_proj.g_idx")
    dense, expert = (mapper.map_name(name) == name for name in names)
    return dense, expert


def test_compiled_without_a_graph_break(ranks_of) -> None:
    case, _ = cases.gptq(0, "row", 1344, 64, act_order=True, symmetric=False)
    assert ranks_of(1).run(_compiled, case) == [True]


def _compiled(case: layers.Case) -> bool:
    from vllm.config import VllmConfig, set_current_vllm_config

    with set_current_vllm_config(VllmConfig()):
        torch.set_default_dtype(torch.float16)
        layer = layers.build(case)
        torch.set_default_dtype(torch.float32)
        layers.load(case, layer)
        layer.quant_method.process_weights_after_loading(layer)
        eager = layer(case.x)[0]
        compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
        same = torch.equal(compiled(case.x)[0], eager)
        return same and torch.equal(compiled(case.x[:2])[0], layer(case.x[:2])[0])


def test_compiled_graphs_of_other_weights_are_not_taken_for_these(ranks_of) -> None:
    case, _ = cases.gptq(0, "row", 384, 64, symmetric=False)
    larger, _ = cases.gptq(0, "row", 384, 64, symmetric=False, largest_scale=3000.0)
    ((first, again, other),) = ranks_of(1).run(_hashes, case, larger)
    assert first == again != other


def _hashes(*made: layers.Case) -> list[str]:
    from vllm.config import VllmConfig, set_current_vllm_config

    hashes = []
    for case in (made[0], *made):
        config = VllmConfig()
        with set_current_vllm_config(config):
            torch.set_default_dtype(torch.float16)
            layer = layers.build(case)
            torch.set_default_dtype(torch.float32)
            layers.load(case, layer)
            layer.quant_method.process_weights_after_loading(layer)
        hashes.append(config.compute_hash())
    return hashes
