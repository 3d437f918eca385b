# SPDX-License-Identifier: Apache-2.0
"""Regular expressions from checkpoints, matched in bounded time.

Python's matcher backtracks: `(.*)*x` takes longer than anyone waits, and no other thread runs
meanwhile. So whatever could be slow is matched in a process of its own, which can be ended.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable

TIMEOUT_S = 5.0
"""The match takes microseconds if the expression is sane, the process 20 ms to start."""

_LONGEST_NAME = 256
_MOST_CHOICES = 3
"""For each choice that does not contain others, a matcher that backtracks tries every length or
alternative that the name allows: 256^3 / 3! = 3 million ways to place three. Names of layers have
about 40 characters, quantizers' expressions (``.*\\.(?:18|19)\\..*gate.*``) about four choices."""

_CHOICE = re.compile(r"(?<!\()[*+?{|]")  # the ? of "(?:" is none
_REPEATED_GROUP = re.compile(r"\)[*+{]")  # where choices contain others, lengths multiply

_PROGRAM = """
import json, re, sys
expression, names = json.load(sys.stdin)
print(json.dumps([re.match(expression, name) is not None for name in names]))
"""


def matching(expression: str, names: Iterable[str]) -> frozenset[str]:
    """Those of `names` whose beginning a regular expression matches.

    Raises ValueError, with the reason alone, if it is none or takes longer than TIMEOUT_S.
    """
    try:
        compiled = re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    quick: list[str] = []
    slow: list[str] = []
    for name in names:
        (quick if _is_quick(expression, name) else slow).append(name)
    found = {name for name in quick if compiled.match(name)}
    return frozenset(found | (_matching_elsewhere(expression, slow) if slow else set()))


def matches(expression: str, name: str) -> bool:
    """`matching` of one name."""
    return name in matching(expression, [name])


def _is_quick(expression: str, name: str) -> bool:
    return (
        len(name) <= _LONGEST_NAME
        and len(_CHOICE.findall(expression)) <= _MOST_CHOICES
        and not _REPEATED_GROUP.search(expression)
    )


def _matching_elsewhere(expression: str, names: list[str]) -> set[str]:
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([expression, names]).encode(),
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"no match and no end of it within {TIMEOUT_S:g} s") from None
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(str(error)) from None
    return {name for name, found in zip(names, json.loads(done.stdout), strict=True) if found}
