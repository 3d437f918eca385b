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

TIMEOUT_S = 5.0
"""The match takes microseconds if the expression is sane, the process 20 ms to start."""

_LONGEST_NAME = 256
_MOST_CHOICES = 3
"""For each choice that does not contain others, a matcher that backtracks tries every length or
alternative that the name allows: 256^3 / 3! = 3 million ways to place three. Names of layers have
about 40 characters, quantizers' expressions (``.*\\.(?:18|19)\\..*gate.*``) about four choices."""

_CHOICE = re.compile(r"(?<!\()[*+?{|]")  # the ? of "(?:" is none
_REPEATED_GROUP = re.compile(r"\)[*+{]")  # where choices contain others, lengths multiply

_PROGRAM = "import json, re, sys; print(re.match(*json.load(sys.stdin)) is not None)"


def matches(expression: str, name: str) -> bool:
    """Whether a regular expression matches the beginning of `name`.

    Raises ValueError, with the reason alone, if it is none or takes longer than TIMEOUT_S.
    """
    try:
        compiled = re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if _is_quick(expression, name):
        return compiled.match(name) is not None
    return _match_elsewhere(expression, name)


def _is_quick(expression: str, name: str) -> bool:
    return (
        len(name) <= _LONGEST_NAME
        and len(_CHOICE.findall(expression)) <= _MOST_CHOICES
        and not _REPEATED_GROUP.search(expression)
    )


def _match_elsewhere(expression: str, name: str) -> bool:
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([expression, name]).encode(),
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"no match and no end of it within {TIMEOUT_S:g} s") from None
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(str(error)) from None
    return done.stdout.strip() == b"True"
