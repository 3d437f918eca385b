# SPDX-License-Identifier: Apache-2.0
"""vLLM 0.24.0 to 0.33.0 on NVIDIA GPUs. Its GPTQ, AWQ and compressed-tensors paths differ."""

from __future__ import annotations

from math import gcd

from padmarlin.engines.cut import MARLIN_GROUPS, Cut
from padmarlin.engines.fact import Engine, Evidence, Fact, Outcome

_READ = "0.24.0 - 0.33.0"
_MOE_LEAST_GROUP = 32  # moe_wna16.py asserts it


def _gptq(cut: Cut) -> bool:
    return cut.method == "gptq"


def _awq(cut: Cut) -> bool:
    return cut.method == "awq"


def _compressed(cut: Cut) -> bool:
    return cut.method == "compressed-tensors"


def _hidden(cut: Cut) -> int:
    """The axis of an expert that no rank cuts: N of down_proj, K of gate and up."""
    return cut.n if cut.axis == "k" else cut.k


def _regroups(cut: Cut) -> bool:
    """MoeWNA16 halves the groups until they divide, and stops at 32 rows."""
    return gcd(cut.k, cut.group_size) >= _MOE_LEAST_GROUP


_CONFIGURATION = (
    Fact(
        lambda cut: _gptq(cut) and cut.reorders,
        Outcome.REFUSE,
        "GPTQ with desc_act and groups raises: act-order was removed, g_idx is dropped",
        ">= 0.30.0; 0.29.0 does not raise",
        Evidence.RUN,
        "vLLM#54809, RFC #48148; tried on 0.32.0",
    ),
    Fact(
        lambda cut: cut.reorders,
        Outcome.UNKNOWN,
        "act-order was removed from the kernels; what {cut.method} files with it do is not "
        "verified",
        ">= 0.30.0",
        Evidence.NONE,
        "vLLM#54809",
    ),
    Fact(
        lambda cut: _gptq(cut) and not cut.sym,
        Outcome.REFUSE,
        "asymmetric GPTQ raises: Unsupported quantization config: bits={cut.bits}, sym=False",
        _READ,
        Evidence.RUN,
        "tried on 0.32.0",
    ),
)

_EXPERTS = (
    Fact(
        lambda cut: cut.experts and not cut.whole_groups and _compressed(cut),
        Outcome.UNKNOWN,
        "K per rank {cut.k} is {cut.groups} groups of {cut.group_size}: Marlin's MoE kernel does "
        "not take it; what does is not verified",
        _READ,
        Evidence.NONE,
        "vLLM#45703",
    ),
    Fact(
        lambda cut: cut.experts and not cut.whole_groups and not _regroups(cut),
        Outcome.REFUSE,
        "K per rank {cut.k} is {cut.groups} groups of {cut.group_size}: MoeWNA16 takes over from "
        "Marlin and halves the groups, but not below 32 rows: it raises",
        _READ,
        Evidence.READ,
        "moe_wna16.py; crashes at such cuts: vLLM#17604",
    ),
    Fact(
        lambda cut: cut.experts and not cut.whole_groups,
        Outcome.UNKNOWN,
        "K per rank {cut.k} is {cut.groups} groups of {cut.group_size}: MoeWNA16 takes over from "
        "Marlin and halves the groups (read, not run); crashes were reported at such cuts",
        _READ,
        Evidence.READ,
        "moe_wna16.py; vLLM#17604, #28829",
    ),
    Fact(
        lambda cut: cut.experts and _hidden(cut) % 128 != 0,
        Outcome.UNKNOWN,
        "Marlin's MoE kernel needs a hidden size divisible by 128; whether MoeWNA16 takes over "
        "rightly is not verified",
        _READ,
        Evidence.READ,
        "vLLM#45703",
    ),
)

_GROUPS = (
    Fact(
        lambda cut: _gptq(cut) and cut.straddles,
        Outcome.WRONG,
        "K per rank {cut.k} is {cut.groups} groups of {cut.group_size}: Marlin refuses, another "
        "kernel takes it (fp16: Exllama; sm_90: Machete) with the scale rows rounded down, so "
        "ranks read wrong scales. bf16 where neither runs: refused",
        _READ,
        Evidence.RUN,
        "TP=2 on the CPU backend of 0.32.0: log-probabilities off by 0.23, no exception. On GPUs "
        "the choice of kernel was simulated; what it computes was not run",
    ),
    Fact(
        lambda cut: _gptq(cut) and cut.ragged,
        Outcome.REFUSE,
        "K {cut.k} is {cut.groups} groups of {cut.group_size}: Marlin and Exllama refuse the short "
        "last group, Machete gets too few scale rows",
        _READ,
        Evidence.DERIVED,
        "can_implement of each kernel",
    ),
    Fact(
        lambda cut: _awq(cut) and not cut.whole_groups,
        Outcome.REFUSE,
        "K per rank {cut.k} is {cut.groups} groups of {cut.group_size}: The input size is not "
        "aligned with the quantized weight shape",
        _READ,
        Evidence.READ,
        "AutoAWQLinearMethod; vLLM#9913, #21695",
    ),
    Fact(
        lambda cut: _compressed(cut) and not cut.whole_groups,
        Outcome.REFUSE,
        "K per rank {cut.k} is {cut.groups} groups of {cut.group_size}: ValueError of "
        "verify_group_size_divides_partition",
        _READ,
        Evidence.READ,
        "vLLM#46236",
    ),
    Fact(
        lambda cut: cut.group_size not in MARLIN_GROUPS,
        Outcome.UNKNOWN,
        "Marlin has no kernel for groups of {cut.group_size}; whether another kernel takes them is "
        "not verified",
        _READ,
        Evidence.READ,
        "generate_kernels.py",
    ),
)

_SIZES = (
    Fact(
        lambda cut: _awq(cut) and any(part % (32 // cut.bits) for part in cut.n_parts),
        Outcome.REFUSE,
        "N per rank {cut.n} splits a packed word: The output size is not aligned with the "
        "quantized weight shape",
        _READ,
        Evidence.DERIVED,
        "AutoAWQLinearMethod",
    ),
    Fact(
        lambda cut: not cut.whole_words,
        Outcome.UNKNOWN,
        "the rank's part {cut.k} x {cut.n} splits a packed 32-bit word; what loading it does is "
        "not verified",
        _READ,
        Evidence.NONE,
        "parameter.py",
    ),
    Fact(
        lambda cut: cut.experts and not cut.some_tile_fits,
        Outcome.ACCEPT,
        "pads the experts' intermediate size",
        "with vLLM#45703; refused before",
        Evidence.READ,
        "vLLM#45703",
    ),
    Fact(
        lambda cut: not cut.some_tile_fits,
        Outcome.ACCEPT,
        "pads the weight, and copies activations and output at every call",
        ">= 0.24.0; 0.23.0 and older refuse",
        Evidence.READ,
        "vLLM#45295 (marlin_padded_nk)",
    ),
    Fact(lambda cut: True, Outcome.ACCEPT, "", _READ, Evidence.READ, "MarlinLinearKernel"),
)

VLLM = Engine("vllm", "vLLM", (*_CONFIGURATION, *_EXPERTS, *_GROUPS, *_SIZES))
