# SPDX-License-Identifier: Apache-2.0
"""What a fact about an engine consists of, and what comes of judging a cut by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from padmarlin.engines.cut import Cut


class Outcome(str, Enum):
    """What an engine does with a cut."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    WRONG = "silently wrong"
    UNKNOWN = "not verified"

    @property
    def works(self) -> bool:
        return self is Outcome.ACCEPT


class Evidence(str, Enum):
    """How a fact is known, the best first."""

    RUN = "run"  # tried, the result measured
    READ = "read"  # read in the engine's source
    REPORTED = "reported"  # in an issue of the engine or of a tool that uses it
    DERIVED = "derived"  # follows from what was read, not tried
    NONE = "none"


@dataclass(frozen=True)
class Fact:
    """In which case an engine does what, why, since when, and how that is known."""

    applies: Callable[[Cut], bool]
    outcome: Outcome
    reason: str  # "{cut.k}" and the like are filled in
    versions: str
    evidence: Evidence
    source: str


@dataclass(frozen=True)
class Engine:
    """The first fact that applies decides; the last one applies always."""

    name: str
    title: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Verdict:
    """What one engine does with one cut."""

    engine: str
    outcome: Outcome
    reason: str  # empty: nothing to say
    versions: str
    evidence: Evidence
    source: str
    rule: str = ""  # the reason without its numbers: the same for every cut that the fact is about

    @property
    def works(self) -> bool:
        return self.outcome.works
