# SPDX-License-Identifier: Apache-2.0
"""Weights that are loaded again into a running layer, as vLLM's reload_weights does it, and weights
that do not come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

from tests.integrations.vllm_layers import cases, layers
from tests.integrations.vllm_layers.ranks import RankError

NAME = "model.layers.7.mlp.down_proj"
RELOADED = {
    "GPTQ": (cases.gptq, "row", (384, 64), {"symmetric": False}),
    "GPTQ, symmetric": (cases.gptq, "row", (384, 64), {}),
    "GPTQ, act-order": (cases.gptq, "row", (512, 64), {"act_order": True}),
    "GPTQ, 8 bits, words cut": (cases.gptq, "row", (1032, 64), {"bits": 8, "symmetric": False}),
    "GPTQ, gate and up": (cases.gptq, "gate_up", (464, 192, 192), {"symmetric": False}),
    "GPTQ, qkv in act-order": (cases.gptq, "qkv", (256, 256, 128, 128), {"act_order": True}),
    "GPTQ, replicated": (cases.gptq, "replicated", (256, 72), {"symmetric": False}),
    "GPTQ, lm_head, padded": (cases.gptq, "lm_head", (256, 1000), {"symmetric": False}),
    "AWQ": (cases.awq, "row", (384, 64), {}),
    "AWQ, symmetric": (cases.awq, "gate_up", (464, 192, 192), {"symmetric": True}),
    "compressed-tensors": (cases.compressed_tensors, "row", (384, 64), {}),
    "compressed-tensors, asymmetric": (
        cases.compressed_tensors,
        "qkv",
        (464, 256, 64, 64),
        {"symmetric": False},
    ),
}


def made(what: str, seed: int) -> tuple[layers.Case, list[Any]]:
    make, kind, sizes, options = RELOADED[what]
    case, read = make(seed, kind, *sizes, **options)
    return replace(case, name=NAME, method="padmarlin"), read


@contextmanager
def running(case: layers.Case, load_format: str = "auto") -> Iterator[tuple[Any, Any]]:
    """(a model of one layer, the layer), made as vLLM makes them, nothing loaded."""
    from vllm.model_executor.model_loader.reload import record_metadata_for_reloading

    with layers.inside_vllm(case.x.dtype, load_format):
        model = torch.nn.Module()
        model.layer = layers.build(case)
        record_metadata_for_reloading(model)
        yield model, model.layer


def load_again(model: Any, case: layers.Case) -> None:
    from vllm.model_executor.model_loader.reload import (
        finalize_layerwise_reload,
        initialize_layerwise_reload,
    )

    initialize_layerwise_reload(model)
    with _dirty_memory():
        layers.load(case, model.layer)
        finalize_layerwise_reload(model, None)


@contextmanager
def _dirty_memory() -> Iterator[None]:
    """vLLM takes the memory of reloaded parameters as it comes; here it comes full of ones."""
    before = torch.empty_strided

    def dirty(*arguments: Any, **keywords: Any) -> Tensor:
        return before(*arguments, **keywords).fill_(1)

    torch.empty_strided = dirty
    try:
        yield
    finally:
        torch.empty_strided = before


def first_and_second(first: layers.Case, second: layers.Case, load_format: str = "auto") -> Any:
    """The answers before and after a reload; whether the memory stayed where it was."""
    with running(first, load_format) as (model, layer):
        if load_format != "dummy":
            layers.load(first, layer)
        layer.quant_method.process_weights_after_loading(layer)
        layer.quant_method.process_weights_after_loading(layer)  # does nothing
        before = layers.multiplied(first, layer)
        places = {name: value.data_ptr() for name, value in layer.named_parameters()}
        for value in layer.parameters():
            value.data.fill_(1)  # level 2 of vLLM's sleep mode keeps nothing
        load_again(model, second)
        after = layers.multiplied(second, layer)
        return before, after, places == {n: p.data_ptr() for n, p in layer.named_parameters()}


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("what", list(RELOADED))
def test_reloaded_weights_are_the_new_ones_in_the_old_place(ranks_of, what: str, tp: int) -> None:
    loaded = [made(what, seed) for seed in (0, 1)]
    answers = ranks_of(tp).run(first_and_second, *(case for case, _ in loaded))
    for rank, (*found, same_place) in enumerate(answers):
        assert same_place
        for y, (case, read) in zip(found, loaded, strict=True):
            wanted = cases.of_rank(case, cases.expected(case, read), rank, tp)
            cases.assert_close(y, wanted, f"rank {rank} of {tp}")


@pytest.mark.parametrize("what", ["GPTQ, symmetric", "AWQ, symmetric"])
def test_zero_points_that_are_not_there_are_symmetric(ranks_of, what: str) -> None:
    loaded = [made(what, seed) for seed in (0, 1)]
    without = [
        replace(
            case,
            tensors=tuple(
                {name: value for name, value in part.items() if name != "qzeros"}
                for part in case.tensors
            ),
        )
        for case, _ in loaded
    ]
    ((*found, _),) = ranks_of(1).run(first_and_second, *without)
    for y, (case, read) in zip(found, loaded, strict=True):
        cases.assert_close(y, torch.cat(cases.expected(case, read), -1), what)


@pytest.mark.parametrize("what", ["GPTQ", "GPTQ, act-order", "compressed-tensors"])
def test_weights_that_replace_dummies(ranks_of, what: str) -> None:
    case, read = made(what, 1)
    dummies = ranks_of(1).run(first_and_second, case, case, "dummy")
    ((before, after, same_place),) = dummies
    assert before.isfinite().all() and same_place
    cases.assert_close(after, cases.expected(case, read)[0], what)


def test_weights_of_another_structure_are_refused(ranks_of) -> None:
    case, _ = made("GPTQ", 0)
    larger, _ = cases.gptq(0, "row", 384, 64, symmetric=False, largest_scale=3.0)
    with pytest.raises(
        RankError, match=f"reloaded weights of {NAME}: got dequant .* restart vLLM with these"
    ):
        ranks_of(1).run(first_and_second, case, larger)
    symmetric, _ = cases.gptq(0, "row", 384, 64)
    with pytest.raises(RankError, match=f"reloaded weights of {NAME}: got zeros .'none'."):
        ranks_of(1).run(first_and_second, case, symmetric)


def test_a_checkpoint_is_not_loaded_into_repacked_weights(ranks_of) -> None:
    """As model.load_weights does without vLLM's reload."""
    case, _ = made("GPTQ", 0)
    with pytest.raises(RankError, match=f"weights of {NAME}: .* use vLLM's reload_weights"):
        ranks_of(1).run(_load_twice, case)


def _load_twice(case: layers.Case) -> None:
    with running(case) as (_, layer):
        layers.load(case, layer)
        layer.quant_method.process_weights_after_loading(layer)
        layers.load(case, layer)


@pytest.mark.parametrize("name", ["qweight", "scales", "qzeros"])
def test_missing_tensors_are_refused_by_name(ranks_of, name: str) -> None:
    case, _ = made("GPTQ, gate and up", 0)
    gate, up = case.tensors
    incomplete = {other: value for other, value in up.items() if other != name}
    with pytest.raises(
        RankError, match=f"{name} of {NAME}: got none for 192 of 384 columns, from 192 on"
    ):
        ranks_of(1).run(layers.run, replace(case, tensors=(gate, incomplete)))


def test_what_is_missing_in_a_reload_is_refused_by_name(ranks_of) -> None:
    case, _ = made("GPTQ", 0)
    (tensors,) = case.tensors
    incomplete = {name: value for name, value in tensors.items() if name != "scales"}
    with pytest.raises(RankError, match=f"scales of {NAME}: got none for 64 of 64 columns"):
        ranks_of(1).run(first_and_second, case, replace(case, tensors=(incomplete,)))
