# SPDX-License-Identifier: Apache-2.0
"""Whether padmarlin takes a layer: a pure function of its sizes, its coding and the mode.

What vLLM does with a layer is known from ``padmarlin.engines``. Nothing here imports vLLM; what
vLLM itself says when it is asked to make the layer comes on top (``layers.refusal_of``).
"""

from __future__ import annotations

from dataclasses import dataclass

from padmarlin.engines import Cut, Outcome, judge
from padmarlin.integrations.vllm.mode import Mode


@dataclass(frozen=True)
class Decision:
    """Whether a layer is taken, and why; the reason is for the log."""

    take: bool
    reason: str


def decide(cut: Cut, mode: Mode) -> Decision:
    """What becomes of a dense layer; `cut` is one rank's part of it."""
    reason = why_vllm_fails(cut)
    if reason is not None:
        return Decision(mode is not Mode.NEVER, reason)
    return Decision(mode is Mode.ALWAYS, "all layers are asked for" if mode is Mode.ALWAYS else "")


def why_vllm_fails(cut: Cut) -> str | None:
    """Why vLLM's own path for a layer refuses, or is wrong; None: nothing of the kind is known.

    Two things that ``padmarlin.engines`` calls "not verified" are no more left to vLLM than what
    it refuses: act-order, whose g_idx it drops, and ranks that begin or end inside a packed word,
    which its loaders round down. For other unverified cuts vLLM is asked itself.
    """
    verdict = judge("vllm", cut)
    if verdict.outcome in (Outcome.REFUSE, Outcome.WRONG):
        return verdict.reason
    if verdict.outcome is Outcome.UNKNOWN and (cut.reorders or _splits_words(cut)):
        return verdict.reason
    return None


def _splits_words(cut: Cut) -> bool:
    """Along K, or along N where something is packed along N: zero points, and AWQ's codes."""
    per_word = 32 // cut.bits
    packs_n = not cut.sym or cut.method == "awq"
    return cut.k % per_word != 0 or (packs_n and not cut.whole_words)


def why_experts_fail(cut: Cut) -> str | None:
    """What is to be said of experts, which stay vLLM's: refused, wrong, or not verified there."""
    verdict = judge("vllm", cut)
    return None if verdict.works else f"{verdict.reason} ({verdict.outcome.value})"
