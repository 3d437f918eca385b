# SPDX-License-Identifier: Apache-2.0
"""What a remedy is, and the sizes and groups that fit where a cut does not.

Pure functions of numbers; padding.py and advice.py turn them into sentences about a model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd, lcm
from typing import Any

from padmarlin.engines.cut import MARLIN_GROUPS
from padmarlin.errors import check_group_size, check_int
from padmarlin.layout import round_up
from padmarlin.plan import MIN_THREAD_K


@dataclass(frozen=True)
class Remedy:
    """Something to do, or that people say one should do."""

    kind: str  # none, run, pad, group_size, tp, folklore
    title: str
    helps: bool
    text: str
    tp: tuple[int, ...] = ()  # at which tensor-parallel sizes it helps
    size: int = 0  # pad: to this size; group_size: the group size
    config_key: str = ""  # pad: what config.json calls that size
    overhead: float = 0.0  # more memory for the quantized layers of the model, as a fraction

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "title": self.title,
            "helps": self.helps,
            "text": self.text,
            "tp": list(self.tp),
            "size": self.size,
            "config_key": self.config_key,
            "overhead": self.overhead,
        }


def padded_intermediate_size(
    size: int, *, group_size: int = 128, tp: int = 1, multiple: int = MIN_THREAD_K
) -> int:
    """The least intermediate size that strict engines can cut over `tp` ranks.

    Every rank then has whole groups and whole tiles of `multiple` rows: the rank's share is a
    multiple of lcm(group_size, multiple). The matrices before it (gate, up) get as many columns,
    which are whole tiles with it: their tile of 64 divides 128.

    >>> padded_intermediate_size(29568, tp=8)
    29696
    """
    size = check_int("padded_intermediate_size", "size", size, 1)
    tp = check_int("padded_intermediate_size", "tp", tp, 1)
    multiple = check_int("padded_intermediate_size", "multiple", multiple, 1)
    group_size = check_group_size("padded_intermediate_size", group_size)
    # A single group over all of K is whole on every rank.
    share = multiple if group_size == -1 else lcm(group_size, multiple)
    return round_up(size, tp * share)


def dividing_group_size(
    sizes_per_rank: Iterable[int], *, choices: Iterable[int] = MARLIN_GROUPS
) -> int:
    """The largest of Marlin's group sizes of which every rank has whole ones; -1 if none is."""
    common = gcd(*sizes_per_rank)
    return max((choice for choice in choices if choice > 0 and common % choice == 0), default=-1)


def listed(numbers: Iterable[int]) -> str:
    """Numbers in a sentence: "2, 4, 8", or "none"."""
    return ", ".join(map(str, numbers)) or "none"
