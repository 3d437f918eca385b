# SPDX-License-Identifier: Apache-2.0
"""``judge``: what a named engine does with a cut."""

from __future__ import annotations

from padmarlin.engines.cut import Cut
from padmarlin.engines.fact import Engine, Verdict
from padmarlin.engines.sglang import SGLANG
from padmarlin.engines.strict_marlin import STRICT_MARLIN
from padmarlin.engines.vllm import VLLM
from padmarlin.errors import check_choice

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (STRICT_MARLIN, VLLM, SGLANG)}


def judge(engine: str, cut: Cut) -> Verdict:
    """What `engine` ("marlin", "vllm", "sglang") does with `cut`, and how that is known."""
    check_choice("judge", "engine", engine, tuple(ENGINES))
    fact = next(fact for fact in ENGINES[engine].facts if fact.applies(cut))
    return Verdict(
        engine=engine,
        outcome=fact.outcome,
        reason=fact.reason.format(cut=cut),
        versions=fact.versions,
        evidence=fact.evidence,
        source=fact.source,
        rule=fact.reason,
    )
