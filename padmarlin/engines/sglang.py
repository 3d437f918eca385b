# SPDX-License-Identifier: Apache-2.0
"""SGLang as of late 2025; its newest versions are not verified."""

from __future__ import annotations

from padmarlin.engines.cut import MARLIN_GROUPS, Cut
from padmarlin.engines.fact import Engine, Evidence, Fact, Outcome

_READ = "late 2025; newer ones not verified"


def _misfits(cut: Cut) -> bool:
    return not cut.whole_tiles or not cut.whole_groups


_FACTS = (
    Fact(
        lambda cut: cut.experts and cut.reorders and cut.tp > 1,
        Outcome.UNKNOWN,
        "experts with act-order over several ranks: reported broken in bf16, the fix still open",
        _READ,
        Evidence.REPORTED,
        "SGLang#36822, #35955",
    ),
    Fact(
        lambda cut: cut.method == "gptq" and not cut.sym,
        Outcome.UNKNOWN,
        "which kernel takes asymmetric GPTQ is not verified",
        _READ,
        Evidence.NONE,
        "",
    ),
    Fact(
        lambda cut: cut.reorders and cut.tp > 1 and cut.axis == "k",
        Outcome.UNKNOWN,
        "act-order with K cut: there is code for it (is_k_full), not verified",
        _READ,
        Evidence.READ,
        "gptq.py",
    ),
    Fact(
        lambda cut: cut.method == "gptq" and cut.straddles and not cut.experts,
        Outcome.WRONG,
        "K per rank {cut.k} is {cut.groups} groups of {cut.group_size}: the shape check is called "
        "and its result dropped; users report garbage text",
        _READ,
        Evidence.REPORTED,
        "GPTQMarlinLinearMethod; auto-round#643",
    ),
    Fact(
        lambda cut: cut.experts and _misfits(cut),
        Outcome.UNKNOWN,
        "experts of {cut.k} x {cut.n} per rank fail the strict check; what follows is not verified",
        _READ,
        Evidence.NONE,
        "",
    ),
    Fact(
        lambda cut: cut.method == "gptq" and _misfits(cut),
        Outcome.UNKNOWN,
        "{cut.k} x {cut.n} per rank fails the strict check, but its result is dropped; what the "
        "kernel then does is not verified",
        _READ,
        Evidence.READ,
        "GPTQMarlinLinearMethod",
    ),
    Fact(
        _misfits,
        Outcome.REFUSE,
        "{cut.k} x {cut.n} per rank fails the strict check: N % 64, K % 128, K % group_size",
        _READ,
        Evidence.READ,
        "verify_marlin_supports_shape",
    ),
    Fact(
        lambda cut: cut.group_size not in MARLIN_GROUPS,
        Outcome.REFUSE,
        "Marlin has no kernel for groups of {cut.group_size}",
        _READ,
        Evidence.READ,
        "MARLIN_SUPPORTED_GROUP_SIZES",
    ),
    Fact(lambda cut: True, Outcome.ACCEPT, "", _READ, Evidence.READ, "gptq.py, awq.py"),
)

SGLANG = Engine("sglang", "SGLang", _FACTS)
