# SPDX-License-Identifier: Apache-2.0
"""vLLM without the plugin: what it refuses or gets wrong is so, and what is left to it stays its
own, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

from tests.integrations.vllm_layers import cases, layers
from tests.integrations.vllm_layers.ranks import RankError

OWN = {"gptq": "auto_gptq", "awq": "auto_awq", "compressed-tensors": "compressed-tensors"}

HEALTHY = [
    (cases.gptq, "row", (512, 64), 2),
    (cases.gptq, "row", (512, 128), 1),
    (cases.gptq, "column", (256, 128), 2),
    (cases.gptq, "gate_up", (256, 192, 192), 2),
    (cases.gptq, "qkv", (256, 256, 64, 64), 4),
    (cases.gptq, "lm_head", (256, 512), 2),
    (cases.awq, "row", (512, 64), 2),
    (cases.awq, "gate_up", (256, 192, 192), 2),
    (partial(cases.awq, symmetric=True), "row", (512, 64), 2),
    (cases.compressed_tensors, "row", (512, 64), 2),
    (cases.compressed_tensors, "qkv", (256, 256, 128, 128), 2),
]


@pytest.mark.parametrize("make, kind, sizes, tp", HEALTHY)
def test_what_vllm_can_do_is_left_to_it(ranks_of, make, kind, sizes, tp: int) -> None:
    case, _ = make(0, kind, *sizes)
    own = replace(case, method=OWN[case.settings["quant_method"]])
    without = ranks_of(tp).run(_loaded_only, own)
    for mine, theirs in zip(ranks_of(tp).run(_loaded_only, case), without, strict=True):
        assert mine.method == theirs.method != "PadmarlinLinearMethod"
        assert mine.loaded.keys() == theirs.loaded.keys()
        for name, tensor in theirs.loaded.items():
            assert torch.equal(mine.loaded[name], tensor), name


def _loaded_only(case: layers.Case) -> layers.Outcome:
    return layers.run(case, multiply=False)


REFUSED = [
    (cases.gptq, "row", (512, 64), {"act_order": True}, 1, "desc_act"),
    (cases.gptq, "row", (512, 64), {"symmetric": False}, 1, "Unsupported quantization config"),
    (cases.gptq, "column", (464, 128), {}, 1, None),
    (cases.gptq, "lm_head", (256, 1000), {}, 1, None),
    (cases.gptq, "row", (1028, 64), {"group_size": -1}, 1, None),
    (cases.compressed_tensors, "row", (384, 64), {}, 2, "group_size"),
    (cases.compressed_tensors, "gate_up", (448, 64, 64), {}, 1, None),
    (cases.compressed_tensors, "row", (512, 64), {"act_order": True}, 1, "activation ordering"),
]


@pytest.mark.parametrize("make, kind, sizes, options, tp, said", REFUSED)
def test_what_vllm_refuses_is_taken(ranks_of, make, kind, sizes, options, tp, said) -> None:
    case, read = make(0, kind, *sizes, **options)
    with pytest.raises(RankError, match=said):
        ranks_of(tp).run(_loaded_only, replace(case, method=OWN[case.settings["quant_method"]]))
    whole = cases.expected(case, read)
    for rank, outcome in enumerate(ranks_of(tp).run(layers.run, case)):
        assert outcome.method == "PadmarlinLinearMethod"
        cases.assert_close(outcome.y, cases.of_rank(case, whole, rank, tp), f"rank {rank}")


@pytest.mark.parametrize(
    "make, k, tp",
    [
        (cases.gptq, 384, 2),
        (cases.gptq, 448, 1),
        (cases.awq, 384, 2),
        (partial(cases.awq, symmetric=True), 384, 2),
    ],
)
def test_straddling_groups_lose_scale_rows_without_a_word(ranks_of, make, k: int, tp: int) -> None:
    """vLLM loads them, with fewer scale rows than the rank's rows have groups, from a wrong place.
    (AWQ only on the CPU: elsewhere it checks. What kernels do with it is tried in vllm_engine.)"""
    case, read = make(0, "row", k, 64)
    own = ranks_of(tp).run(_loaded_only, replace(case, method=OWN[case.settings["quant_method"]]))
    rows = k // tp
    for rank, outcome in enumerate(own):
        first, last = rank * rows // 128, (rank * rows + rows - 1) // 128
        kept = outcome.loaded["scales"]
        assert kept.shape[0] == rows // 128 < last - first + 1
        at = rank * (rows // 128)
        assert torch.equal(kept, torch.from_numpy(read[0].scales)[at : at + kept.shape[0]])
    for outcome in ranks_of(tp).run(layers.run, case):
        cases.assert_close(outcome.y, cases.expected(case, read)[0], "padmarlin")


def test_words_cut_along_k_lose_codes_without_a_word(ranks_of) -> None:
    """516 rows are 64.5 words; vLLM loads 64 for each rank: rank 1's begin half a word early."""
    case, read = cases.gptq(0, "row", 1032, 64, group_size=-1)
    for rank, words in enumerate(ranks_of(2).run(_loaded_words, case)):
        assert torch.equal(words, torch.from_numpy(read[0].qweight)[64 * rank : 64 * rank + 64])


def _loaded_words(case: layers.Case) -> torch.Tensor:
    """The kernel's check of sizes, which differs by platform, is left out."""
    from unittest import mock

    from vllm.model_executor.kernels.linear.mixed_precision.cpu import CPUWNA16LinearKernel

    accept = mock.patch.object(CPUWNA16LinearKernel, "can_implement", return_value=(True, None))
    with accept:
        outcome = layers.run(replace(case, method="auto_gptq"), multiply=False)
    return outcome.loaded["qweight"]
