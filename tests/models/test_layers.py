# SPDX-License-Identifier: Apache-2.0
"""Every known architecture's linear layers, against tables written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from padmarlin.models import LinearLayer, Part, read_model
from padmarlin.models.families import FAMILIES
from padmarlin.models.layers import number_ranges
from tests.models.configs import CONFIGS, LAYERS, write


@pytest.mark.parametrize("name", CONFIGS)
def test_golden_layers(name: str, tmp_path: Path) -> None:
    model = read_model(write(tmp_path, CONFIGS[name]))
    found = [(x.pattern, x.k, x.n, x.axis, x.count) for x, _ in model.layers]
    assert found == LAYERS[name]
    assert model.known


def test_every_family_has_a_row() -> None:
    tested = set()
    for config in CONFIGS.values():
        text = config.get("text_config") or config.get("llm_config") or config
        tested |= {text["model_type"], config["model_type"]}
    # These are other names of, or differ by nothing but a name from, one that has a row.
    twins = {"glm", "dots1", "gemma3", "qwen2_vl_text", "qwen3_vl_moe", "qwen3_vl_moe_text"}
    assert set(FAMILIES) - tested <= twins


@pytest.mark.parametrize("name", CONFIGS)
def test_routers_and_heads_are_not_quantized(name: str, tmp_path: Path) -> None:
    for layer, kind in read_model(write(tmp_path, CONFIGS[name])).layers:
        assert (kind is None) == (layer.role in ("router", "shared_gate", "lm_head")), layer.pattern


@pytest.mark.parametrize(
    ("tp", "columns"),
    [(1, (896, 128, 128)), (2, (448, 64, 64)), (7, (128, 0, 0)), (14, (64, 64, 64))],
)
def test_kv_heads_are_replicated_when_there_are_too_few(
    tp: int, columns: tuple[int, ...], tmp_path: Path
) -> None:
    """Qwen2.5-0.5B: 14 heads of 64, 2 of them for k and v."""
    qkv = read_model(write(tmp_path, CONFIGS["qwen2.5-0.5b"])).layers[0][0]
    assert qkv.n_per_rank(tp) == columns


def test_rows_of_a_head_stay_together(tmp_path: Path) -> None:
    o_proj = read_model(write(tmp_path, CONFIGS["qwen2.5-0.5b"])).layers[1][0]
    assert [o_proj.k_per_rank(tp) for tp in (1, 2, 4, 7)] == [896, 448, 0, 128]


def test_replicated_layers_are_whole_on_every_rank(tmp_path: Path) -> None:
    down = read_model(write(tmp_path, CONFIGS["deepseek-v3"])).layers[0][0]
    assert down.role == "qkv_a"
    assert (down.k_per_rank(8), down.n_per_rank(8)) == (7168, (1536, 576))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3], "3"), ([0, 1, 2], "{0..2}"), ([0, 2, 3, 4, 9], "{0,2..4,9}"), ([5, 4], "{4..5}")],
)
def test_number_ranges(numbers: list[int], text: str) -> None:
    assert number_ranges(numbers) == text


def test_part_that_cannot_be_cut() -> None:
    assert Part("gate", 100).per_rank(3) == 0
    assert LinearLayer("x", "x", 100, (Part("x", 8),), "k").k_per_rank(3) == 0


def test_sparse_layers_of_qwen_moe(tmp_path: Path) -> None:
    """Every second layer, counted from 1, but for layer 3."""
    config = CONFIGS["qwen3-30b-a3b"] | {"decoder_sparse_step": 2, "mlp_only_layers": [3]}
    names = [layer.pattern for layer, _ in read_model(write(tmp_path, config)).layers]
    dense = "{0,2..4," + ",".join(str(i) for i in range(6, 47, 2)) + "}"
    assert f"model.layers.{dense}.mlp.down_proj" in names
