# SPDX-License-Identifier: Apache-2.0
"""The classic check of Marlin kernels: whole thread tiles, whole groups, whatever the version.

It is the one that RankPlan.strict_marlin answers; here it gives its reasons one at a time.
"""

from __future__ import annotations

from padmarlin.engines.cut import Cut
from padmarlin.engines.fact import Engine, Evidence, Fact, Outcome
from padmarlin.plan import MIN_THREAD_K, MIN_THREAD_N

_SOURCE = "check_marlin_supports_shape in vLLM and SGLang"


def _refusal(*, n: bool, k: bool, groups: bool) -> Fact:
    """The fact for one combination of what does not fit."""

    def applies(cut: Cut) -> bool:
        misfits = (cut.n % MIN_THREAD_N != 0, cut.k % MIN_THREAD_K != 0, not cut.whole_groups)
        return misfits == (n, k, groups)

    reasons = (
        (n, f"out_features per rank {{cut.n}} is not divisible by min_thread_n = {MIN_THREAD_N}"),
        (k, f"in_features per rank {{cut.k}} is not divisible by min_thread_k = {MIN_THREAD_K}"),
        (groups, "in_features per rank {cut.k} is not divisible by group_size = {cut.group_size}"),
    )
    return Fact(
        applies=applies,
        outcome=Outcome.REFUSE,
        reason="; ".join(text for misfit, text in reasons if misfit),
        versions="any version that does not pad; vLLM up to 0.23.0",
        evidence=Evidence.READ,
        source=_SOURCE,
    )


_COMBINATIONS = [
    (n, k, groups) for n in (True, False) for k in (True, False) for groups in (True, False)
]

STRICT_MARLIN = Engine(
    "marlin",
    "strict Marlin",
    (
        *(_refusal(n=n, k=k, groups=groups) for n, k, groups in _COMBINATIONS if n or k or groups),
        Fact(lambda cut: True, Outcome.ACCEPT, "", "all", Evidence.READ, _SOURCE),
    ),
)
