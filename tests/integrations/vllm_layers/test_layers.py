# SPDX-License-Identifier: Apache-2.0
"""padmarlin's method inside vLLM's own layers, 1, 2 and 4 ranks, against tests/oracle.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

from tests.integrations.vllm_layers import cases, layers

ASYM_V2 = {"symmetric": False, "checkpoint_format": "gptq_v2"}

# Word-cutting K: 1032 at TP=2 is 516 rows, 64.5 words of eight; at TP=4 258, 32.25 words.
GPTQ = {
    "straddling": ("row", (384, 64), {}),
    "straddling 8 bits": ("row", (384, 64), {"bits": 8}),
    "straddling asymmetric": ("row", (384, 64), {"symmetric": False}),
    "straddling asymmetric v2": ("row", (384, 64), ASYM_V2),
    "act-order": ("row", (512, 64), {"act_order": True}),
    "act-order straddling v2 g64": (
        "row",
        (1344, 64),
        {"act_order": True, "group_size": 64, **ASYM_V2},
    ),
    "act-order 8 bits": ("row", (512, 64), {"act_order": True, "bits": 8, "symmetric": False}),
    "ragged last group": ("row", (464, 64), {}),
    "ragged last group, act-order": ("row", (464, 64), {"act_order": True, "symmetric": False}),
    "words cut": ("row", (1032, 64), {"group_size": 8}),
    "words cut, g 128": ("row", (1032, 64), {"symmetric": False}),
    "words cut, 8 bits": ("row", (1032, 64), {"bits": 8, "symmetric": False}),
    "words cut, act-order": ("row", (1032, 64), {"act_order": True, **ASYM_V2}),
    "words cut, channelwise": ("row", (1032, 64), {"group_size": -1}),
    "channelwise": ("row", (384, 64), {"group_size": -1, "symmetric": False}),
    "groups of 16": ("row", (384, 64), {"group_size": 16}),
    "groups of 100": ("row", (400, 64), {"group_size": 100, "symmetric": False}),
    "odd N": ("row", (384, 24), {"symmetric": False}),
    "column asymmetric": ("column", (256, 128), {"symmetric": False}),
    "column, N cut in words": ("column", (256, 1032), ASYM_V2),
    "column ragged": ("column", (464, 128), {}),
    "column act-order": ("column", (256, 128), {"act_order": True}),
    "replicated asymmetric": ("replicated", (256, 72), {"symmetric": False}),
    "replicated act-order": ("replicated", (256, 72), {"act_order": True}),
    "gate and up asymmetric": ("gate_up", (256, 192, 192), ASYM_V2),
    "gate and up, N cut in words": ("gate_up", (256, 1032, 1032), {"symmetric": False}),
    "gate and up, N cut in words, 8 bits": (
        "gate_up",
        (256, 1032, 1032),
        {"bits": 8, "symmetric": False},
    ),
    "gate and up act-order": ("gate_up", (256, 192, 192), {"act_order": True}),
    "qkv asymmetric": ("qkv", (256, 256, 256, 256), {"symmetric": False}),
    "qkv act-order": ("qkv", (256, 256, 128, 128), {"act_order": True, "group_size": 64}),
    "qkv, one KV head": ("qkv", (256, 256, 64, 64), {"symmetric": False, "bits": 8}),
    "lm_head": ("lm_head", (256, 512), {"symmetric": False}),
    "lm_head, vocabulary padded": ("lm_head", (256, 1000), {"act_order": True}),
}
AWQ = {
    "straddling": ("row", (384, 64), {}),
    "ragged": ("row", (464, 64), {}),
    "odd K": ("row", (1032, 64), {"group_size": 8}),
    "column ragged": ("column", (464, 128), {}),
    "column, N cut in words": ("column", (256, 1032), {}),
    "gate and up, N cut in words": ("gate_up", (256, 1032, 1032), {"group_size": 64}),
    "lm_head ragged": ("lm_head", (464, 1000), {}),
    "symmetric, straddling": ("row", (384, 64), {"symmetric": True}),
    "symmetric, odd K": ("row", (1032, 64), {"symmetric": True, "group_size": 8}),
    "symmetric column, N cut in words": ("column", (256, 1032), {"symmetric": True}),
    "symmetric gate and up": ("gate_up", (464, 192, 192), {"symmetric": True}),
    "symmetric qkv, one KV head": ("qkv", (256, 256, 64, 64), {"symmetric": True}),
    "symmetric lm_head": ("lm_head", (256, 1000), {"symmetric": True}),
}
COMPRESSED = {
    "straddling": ("row", (384, 64), {}),
    "straddling asymmetric": ("row", (384, 64), {"symmetric": False}),
    "straddling 8 bits": ("row", (384, 64), {"bits": 8, "symmetric": False}),
    "ragged": ("row", (464, 64), {}),
    "act-order": ("row", (512, 64), {"act_order": True}),
    "words cut": ("row", (1032, 64), {"symmetric": False}),
    "words cut, channelwise": ("row", (1032, 64), {"group_size": -1}),
    "column ragged": ("column", (464, 128), {"symmetric": False}),
    "gate and up, N cut in words": ("gate_up", (464, 1032, 1032), {"symmetric": False}),
    "gate and up act-order": ("gate_up", (256, 192, 192), {"act_order": True}),
    "qkv ragged": ("qkv", (464, 256, 64, 64), {"symmetric": False}),
}
FORMATS = {
    "gptq": (cases.gptq, GPTQ),
    "awq": (cases.awq, AWQ),
    "compressed-tensors": (cases.compressed_tensors, COMPRESSED),
}
ALL = [(name, case) for name, (_, of_format) in FORMATS.items() for case in of_format]


def made(written: str, name: str, seed: int = 0):
    make, of_format = FORMATS[written]
    kind, sizes, options = of_format[name]
    return make(seed, kind, *sizes, **options)


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize("written, name", ALL)
def test_taken_layer_is_right_on_every_rank(ranks_of, written: str, name: str, tp: int) -> None:
    case, read = made(written, name)
    case = replace(case, method="padmarlin")
    outcomes = ranks_of(tp).run(layers.run, case)
    whole = cases.expected(case, read)
    for rank, outcome in enumerate(outcomes):
        assert outcome.method == "PadmarlinLinearMethod"
        wanted = cases.of_rank(case, whole, rank, tp)
        cases.assert_close(outcome.y, wanted, f"rank {rank} of {tp}")


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("kind, n", [("row", (64,)), ("gate_up", (64, 64)), ("qkv", (128, 64, 64))])
def test_bias_is_added_once(ranks_of, kind: str, n: tuple[int, ...], tp: int) -> None:
    case, read = cases.gptq(0, kind, 384, *n, symmetric=False)
    bias = torch.linspace(-8, 8, sum(n), dtype=torch.float16)
    case = replace(case, bias=bias)
    outcomes = ranks_of(tp).run(layers.run, case)
    whole = [
        y + part.double()
        for y, part in zip(cases.expected(case, read), bias.split(list(n)), strict=True)
    ]
    for rank, outcome in enumerate(outcomes):
        wanted = cases.of_rank(case, whole, rank, tp)
        cases.assert_close(outcome.y, wanted, f"rank {rank} of {tp}")


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("kind, n", [("gate_up", (192, 192)), ("qkv", (256, 128, 128))])
@pytest.mark.parametrize("make", [cases.gptq, cases.compressed_tensors])
def test_fused_matrices_whose_rows_differ_in_order(ranks_of, make, kind, n, tp: int) -> None:
    """gate and up quantized apart: each has a g_idx of its own."""
    made_apart = [make(seed, kind, 256, size, act_order=True) for seed, size in enumerate(n)]
    case = replace(
        made_apart[0][0],
        n=n,
        tensors=tuple(part.tensors[0] for part, _ in made_apart),
        bias=torch.linspace(-1, 1, sum(n), dtype=torch.float16),
    )
    read = [layer for _, (layer,) in made_apart]
    g_idx = next(name for name in case.tensors[0] if name.endswith("g_idx"))
    assert not torch.equal(case.tensors[0][g_idx], case.tensors[1][g_idx])
    outcomes = ranks_of(tp).run(layers.run, case)
    biases = case.bias.split(list(n))
    whole = [y + part.double() for y, part in zip(cases.expected(case, read), biases, strict=True)]
    for rank, outcome in enumerate(outcomes):
        # vLLM finds the device of a layer with LoRA by its "qweight".
        assert {"qweight", f"qweight_{len(n) - 1}"} <= outcome.parameters.keys()
        wanted = cases.of_rank(case, whole, rank, tp)
        cases.assert_close(outcome.y, wanted, f"rank {rank} of {tp}")


FUSED = [
    ("gptq", "gate_up", (256, 192, 192), {"symmetric": False}),
    ("gptq", "gate_up", (256, 192, 192), {"act_order": True}),
    ("gptq", "qkv", (256, 256, 128, 128), {"act_order": True, "symmetric": False}),
    ("awq", "gate_up", (464, 192, 192), {}),
    ("awq", "gate_up", (464, 192, 192), {"symmetric": True}),
    ("compressed-tensors", "qkv", (464, 256, 128, 128), {"symmetric": False}),
]


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("written, kind, sizes, options", FUSED)
def test_matrices_fused_on_disk(ranks_of, written, kind, sizes, options, tp: int) -> None:
    """As in Phi-3: one tensor in the checkpoint, parts by vLLM."""
    make, _ = FORMATS[written]
    case, read = make(0, kind, *sizes, **options)
    axis = 0 if written == "compressed-tensors" else 1
    together = {
        name: tensor
        if name.endswith(("g_idx", "weight_shape"))
        else torch.cat([part[name] for part in case.tensors], axis)
        for name, tensor in case.tensors[0].items()
    }
    outcomes = ranks_of(tp).run(layers.run, replace(case, tensors=(together,), fused_on_disk=True))
    whole = cases.expected(case, read)
    for rank, outcome in enumerate(outcomes):
        wanted = cases.of_rank(case, whole, rank, tp)
        cases.assert_close(outcome.y, wanted, f"rank {rank} of {tp}")


def test_bfloat16(ranks_of) -> None:
    case, read = cases.gptq(0, "row", 384, 64, symmetric=False, dtype=torch.bfloat16)
    for outcome in ranks_of(2).run(layers.run, case):
        assert outcome.y.dtype == torch.bfloat16
        cases.assert_close(outcome.y, cases.expected(case, read)[0], "TP=2")


def test_nothing_of_the_checkpoint_stays(ranks_of) -> None:
    case, _ = cases.gptq(0, "row", 1344, 64, act_order=True, **ASYM_V2)
    (outcome,) = ranks_of(1).run(layers.run, case)
    assert set(outcome.loaded) == {"qweight", "scales", "qzeros", "g_idx"}
    assert set(outcome.parameters) == {"qweight", "scales", "zeros", "slice_rows", "columns"}
