# SPDX-License-Identifier: Apache-2.0
"""The shapes of the benchmark: real layers, cut where tensor parallelism cuts them."""

from __future__ import annotations

import pytest

from benchmarks.shapes import COLLECTIONS, LAYERS, PAIRS, QWEN2_72B, layers_of, slowest_part
from padmarlin.plan import plan


def part(model, name, tp, group=None):
    (layer,) = (x for x in LAYERS if (x.model, x.name) == (model, name))
    return slowest_part(layer, tp, group)


def test_qwen2_72b_has_the_sizes_of_the_published_tables():
    sizes = {
        (p.tp, p.layer.name): (p.k, p.n)
        for layer in QWEN2_72B
        for p in (slowest_part(layer, tp) for tp in layer.tps)
    }
    assert len(sizes) == 16
    assert sizes[1, "gate_up"] == (8192, 59136)
    assert sizes[2, "down"] == (14784, 8192)
    assert sizes[4, "gate_up"] == (8192, 14784)
    assert sizes[8, "qkv"] == (8192, 1280)
    assert sizes[8, "down"] == (3696, 8192)
    assert sizes[8, "o"] == (1024, 8192)


def test_a_row_parallel_part_is_an_inner_rank_that_begins_inside_a_group():
    assert part("qwen2-72b", "down", 2).k_start == 14784
    assert part("qwen2-72b", "down", 8).k_start == 3696  # 112 of 128: 48 rows in front, 59 tiles
    assert part("qwen2.5-7b", "down", 8).k_start % 128 == 64
    assert part("qwen2-72b", "o", 8).k_start == 0  # whole groups everywhere


@pytest.mark.parametrize("layer", LAYERS, ids=lambda x: f"{x.model}-{x.name}")
def test_no_rank_waits_for_another(layer):
    for tp in layer.tps:
        chosen = slowest_part(layer, tp)
        cut = plan(layer.k, layer.n, group_size=layer.group, tp=tp, axis=layer.axis)
        rank = cut.ranks[chosen.rank]
        assert rank.padded_k == max(r.padded_k for r in cut.ranks)
        assert (chosen.k, chosen.n, chosen.k_start) == (rank.k, rank.n, rank.k_start)


def test_every_pair_is_ragged_and_differs_in_what_its_name_says():
    parts = {layer.name: slowest_part(layer, layer.tps[0]) for layer in PAIRS}
    assert all(p.ragged for p in parts.values())
    assert parts["n_odd"].n % 2 == 1
    assert parts["k_even"].k % 8 and parts["k_even"].k % 2 == 0
    assert parts["k_odd"].k % 2 == 1
    assert not part("qwen2-72b", "qkv", 1).ragged


def test_unknown_models_are_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="--model: got 'llama', expected some of .*qwen2-72b"):
        layers_of(["qwen2-72b", "llama"])
    assert layers_of(["all"]) == list(LAYERS)
    assert {x.model for x in layers_of(["ragged"])} == set(COLLECTIONS["ragged"])
