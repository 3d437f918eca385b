# SPDX-License-Identifier: Apache-2.0
"""``plan_model``: what is said of real models, layer by layer, and the remedies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from padmarlin import plan
from padmarlin.engines import ENGINES, Cut, Outcome, judge
from padmarlin.models import (
    ModelPlan,
    Remedy,
    dividing_group_size,
    padded_intermediate_size,
    plan_model,
)
from tests.checkpoint_files import REAL
from tests.models.configs import CONFIGS, QWEN2_72B, write


def planned(tmp_path: Path, name: str, **options: Any) -> ModelPlan:
    return plan_model(write(tmp_path, CONFIGS[name]), **options)


def remedies(found: ModelPlan, kind: str) -> list[Remedy]:
    return [remedy for remedy in found.remedies if remedy.kind == kind]


def remedy(found: ModelPlan, title: str) -> Remedy:
    return next(remedy for remedy in found.remedies if title in remedy.title)


def test_qwen2_72b(tmp_path: Path) -> None:
    found = planned(tmp_path, "qwen2-72b")
    down = {cut.tp: cut for cut in found.cuts if cut.layer.role == "down"}
    assert {tp: cut.k for tp, cut in down.items()} == {1: 29568, 2: 14784, 4: 7392, 8: 3696}
    assert [cut.padmarlin.straddles for cut in down.values() if cut.padmarlin] == [
        False, True, True, True,
    ]  # fmt: skip
    assert down[2].verdicts["vllm"].outcome is Outcome.WRONG
    assert [found.works("vllm", tp) for tp in found.tp] == [True, False, False, False]
    # The sizes are those of the cut itself.
    for tp, cut in down.items():
        of_layer = plan(29568, 8192, tp=tp)
        assert cut.padmarlin and cut.padmarlin.overhead == of_layer.overhead
        assert cut.padmarlin.padded_k == max(rank.padded_k for rank in of_layer.ranks)


def test_qwen2_72b_remedies(tmp_path: Path) -> None:
    found = planned(tmp_path, "qwen2-72b")
    assert [r.kind for r in found.remedies][:2] == ["run", "pad"]
    (pad,) = remedies(found, "pad")
    assert (pad.size, pad.tp, pad.helps) == (29696, (2, 4, 8), True)
    # 128 of 29568 rows, of layers that are (3 * 29568 + 18432) / (3 * 29568) as large together.
    assert pad.overhead == pytest.approx(128 / 29568 * 88704 / (88704 + 18432), rel=1e-3)
    assert "official Qwen2 and Qwen2.5 72B GPTQ files are already padded to 29696" in pad.text
    assert [(r.size, r.tp) for r in remedies(found, "group_size")] == [
        (64, (2,)), (32, (4,)), (-1, (8,)),
    ]  # fmt: skip
    assert remedies(found, "tp")[0].tp == (1,)
    assert not remedy(found, "--quantization gptq").helps
    assert not remedy(found, "--enforce-eager").helps
    assert not remedy(found, "INT8").helps
    assert not remedy(found, "multiple of 128").helps
    assert remedy(found, "smaller tensor-parallel").tp == (1,)
    assert remedy(found, "pipeline").helps


@pytest.mark.parametrize("name", CONFIGS)
def test_other_groups_are_whole_everywhere(name: str, tmp_path: Path) -> None:
    found = planned(tmp_path, name)
    for remedy in remedies(found, "group_size"):
        again = planned(tmp_path, name, tp=remedy.tp, group_size=remedy.size)
        assert all(cut.problem or cut.cut.whole_groups for cut in again.cuts), remedy.title
        taken = [e for e in ENGINES if ENGINES[e].title in remedy.text]
        assert remedy.helps == bool(taken)
        for engine in taken:
            assert all(cut.problem for cut in again.failures(engine)), (remedy.title, engine)


def test_the_padded_model_has_nothing_to_do(tmp_path: Path) -> None:
    padded = QWEN2_72B | {"intermediate_size": 29696}
    found = plan_model(write(tmp_path, padded))
    assert [r.kind for r in found.remedies] == ["none"]
    assert not found.failures("marlin")


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_makes_every_cut_whole(name: str, tmp_path: Path) -> None:
    """A padding that is said to help is taken by the strict check, and no smaller one is."""
    found = planned(tmp_path, name)
    for pad in remedies(found, "pad"):
        if not pad.helps:
            continue
        for layer, kind in found.model.layers:
            if kind is None or layer.size_key != pad.config_key or layer.axis != "k":
                continue
            size = pad.size * layer.size_times
            for tp in pad.tp:
                assert judge("marlin", Cut.of(size, layer.n, tp=tp)).works, (pad.title, tp)
                if layer.size_times == 1:
                    smaller = range(pad.size - tp, layer.k - 1, -tp)
                    cuts = [Cut.of(k, layer.n, tp=tp) for k in smaller if k % tp == 0]
                    assert not any(judge("marlin", cut).works for cut in cuts), (pad.title, tp)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_plan_is_consistent(name: str, tmp_path: Path) -> None:
    found = planned(tmp_path, name, tp=(1, 2, 3, 8, 64))
    quantized = [layer for layer, kind in found.model.layers if kind is not None]
    assert len(found.cuts) == 5 * len(quantized)
    for cut in found.cuts:
        assert set(cut.verdicts) == set(ENGINES)
        assert bool(cut.problem) == (cut.padmarlin is None)
        if cut.padmarlin is not None:
            assert cut.padmarlin.padded_k >= cut.k
            assert cut.padmarlin.padded_n >= cut.n
            assert cut.padmarlin.overhead >= 0
    assert found.remedies
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_heads_are_not_padded(tmp_path: Path) -> None:
    found = planned(tmp_path, "qwen2.5-0.5b", tp=(2,))
    pad = remedy(found, "o_proj")
    assert not pad.helps
    assert "heads" in pad.text


def test_several_paddings(tmp_path: Path) -> None:
    """GLM-4-9B: 107 groups of 128; eight ranks need 112, two and four 108."""
    found = planned(tmp_path, "glm-4-9b-0414")
    assert [(r.size, r.tp) for r in remedies(found, "pad")] == [(13824, (2, 4)), (14336, (8,))]


def test_sizes_are_padded_by_key(tmp_path: Path) -> None:
    """Routed and shared experts have one key; two shared experts in one are twice as wide."""
    found = planned(tmp_path, "deepseek-v2-lite", tp=(2,))
    pads = {r.config_key: r for r in remedies(found, "pad")}
    assert {key: r.size for key, r in pads.items()} == {
        "intermediate_size": 11008,
        "moe_intermediate_size": 1536,
    }
    moe = [
        (layer, layer.count * layer.k * layer.n)
        for layer, _ in found.model.layers
        if layer.size_key == "moe_intermediate_size"
    ]
    shared = next(layer for layer, _ in moe if layer.role == "shared_down")
    assert (shared.k, shared.size_times) == (2816, 2)
    whole = sum(layer.count * layer.k * layer.n for layer, kind in found.model.layers if kind)
    padding = sum(weights for _, weights in moe) * 128 / 1408
    assert pads["moe_intermediate_size"].overhead == pytest.approx(padding / whole)
    assert "no fused MoE kernel yet" in remedies(found, "run")[0].text


def test_inferred_sizes_are_padded_too(tmp_path: Path) -> None:
    source = next(path for path in REAL if path.name == "gptq4_g128_sym_i384")
    config = json.loads((source / "config.json").read_text())
    write(tmp_path, config | {"model_type": "novel"})
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    (pad,) = (r for r in remedies(plan_model(tmp_path, tp=(2,)), "pad") if r.helps)
    assert pad.title == "padmarlin pad model.layers.0.mlp 384 -> 512"


def test_ranks_that_cannot_share_heads(tmp_path: Path) -> None:
    found = planned(tmp_path, "qwen2.5-0.5b", tp=(4,))
    qkv = found.cuts[0]
    assert qkv.problem == "4 ranks cannot share the 896 columns = 14 heads of q equally"
    assert qkv.padmarlin is None
    assert not found.works("vllm", 4)


def test_tiles_alone(tmp_path: Path) -> None:
    """At g = 32, TP = 4, only tiles are amiss: vLLM pads by itself."""
    found = planned(tmp_path, "qwen2-72b", tp=(4,), group_size=32)
    assert found.works("vllm", 4)
    assert not found.works("marlin", 4)
    assert remedy(found, "multiple of 128").helps
    assert not remedies(found, "group_size")


def test_act_order_is_bounded(tmp_path: Path) -> None:
    found = planned(tmp_path, "qwen2-72b", tp=(2,), act_order=True)
    down = found.cuts[-1]
    assert down.padmarlin and not down.padmarlin.exact
    assert "at most" in remedies(found, "run")[0].text
    pad = remedies(found, "pad")[0]
    assert "act-order was removed" in pad.text


@pytest.mark.parametrize(
    ("size", "group_size", "tp", "expected"),
    [
        (29568, 128, 1, 29568),
        (29568, 128, 2, 29696),
        (29568, 64, 2, 29696),
        (29568, -1, 2, 29696),
        (29568, 128, 8, 29696),
        (10944, 128, 1, 11008),
        (1408, 128, 8, 2048),
        (1344, 96, 1, 1536),  # lcm(96, 128) = 384
        (1, 1, 1, 128),
    ],
)
def test_padded_intermediate_size(size: int, group_size: int, tp: int, expected: int) -> None:
    found = padded_intermediate_size(size, group_size=group_size, tp=tp)
    assert found == expected
    share = found // tp
    assert share % 128 == 0
    assert group_size == -1 or share % group_size == 0


@pytest.mark.parametrize(
    ("sizes", "expected"), [((14784,), 64), ((7392,), 32), ((3696,), -1), ((14848, 4096), 128)]
)
def test_dividing_group_size(sizes: tuple[int, ...], expected: int) -> None:
    assert dividing_group_size(sizes) == expected


@pytest.mark.parametrize("directory", REAL, ids=lambda path: path.name)
def test_real_checkpoints(directory: Path) -> None:
    found = plan_model(directory, tp=(1, 2))
    assert found.model.scheme.common.source == "config.json"
    assert found.failures("marlin")  # all of them are made to be awkward


def test_json_shape(tmp_path: Path) -> None:
    """What docs/cli-plan.md promises; a change needs another number in the schema."""
    found = planned(tmp_path, "qwen2-72b", tp=(2,)).to_json()
    assert list(found) == [
        "schema", "model", "quantization", "tp", "works", "layers", "remedies", "notes",
    ]  # fmt: skip
    assert found["schema"] == "padmarlin.plan/1"
    assert list(found["model"]) == ["path", "architecture", "known", "hidden_size"]
    assert found["quantization"] == {
        "method": "gptq", "bits": 4, "group_size": 128, "act_order": False, "sym": True,
        "source": "assumed",
    }  # fmt: skip
    assert found["works"] == {"marlin": {"2": False}, "vllm": {"2": False}, "sglang": {"2": False}}
    down = found["layers"][3]
    assert list(down) == [
        "name", "role", "count", "k", "n", "parts", "axis", "quantization", "cuts",
    ]  # fmt: skip
    assert down["parts"] == [{"name": "down", "n": 8192}]
    (cut,) = down["cuts"]
    assert list(cut) == ["tp", "k", "n", "engines", "padmarlin", "problem"]
    assert list(cut["engines"]) == ["marlin", "vllm", "sglang"]
    assert list(cut["engines"]["vllm"]) == ["outcome", "reason", "versions", "evidence", "source"]
    assert cut["engines"]["vllm"]["outcome"] == "silently wrong"
    assert cut["padmarlin"] == {
        "padded_k": 14784, "padded_n": 8192, "overhead": 0.0, "straddles": True, "exact": True,
    }  # fmt: skip
    assert list(found["remedies"][0]) == [
        "kind", "title", "helps", "text", "tp", "size", "config_key", "overhead",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tp": ()}, TypeError, "tp: got ()"),
        ({"tp": (0,)}, ValueError, "tp: got 0"),
        ({"tp": (5000,)}, ValueError, "tp: got 5000, expected at most 1024"),
        ({"tp": ("2",)}, TypeError, "tp: got '2'"),
        ({"bits": 5}, ValueError, "bits: got 5"),
        ({"group_size": 0}, ValueError, "group_size: got 0"),
        ({"group_size": 2.0}, TypeError, "group_size: got 2.0"),
        ({"sym": 1}, ValueError, "sym: got 1"),
    ],
)
def test_refusals(
    options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    import re

    with pytest.raises(error, match=re.escape(message)):
        planned(tmp_path, "qwen2-72b", **options)


def test_one_tp(tmp_path: Path) -> None:
    assert planned(tmp_path, "qwen2-72b", tp=2).tp == (2,)
