# SPDX-License-Identifier: Apache-2.0
"""A planted bug, and the ways in which a test sees one."""

from __future__ import annotations

from dataclasses import dataclass

# How a test sees a bug: the program that shows it, and a regular expression for its report.
WRONG = ("plain", r"wrong value (at row|in tile)")
NAN = ("plain", r"NaN at row")
GUARD = ("plain", r"guard zone overwritten")
CONFLICT = ("plain", r"bank conflicts: ")
REPORT = ("plain", r"emulator report: \w+: block \(\d+, \d+\) thread \d+: ")
ASAN = ("asan", r"ERROR: AddressSanitizer: ")
UBSAN = ("asan", r"runtime error: ")
RACE = ("tsan", r"WARNING: ThreadSanitizer: data race(?s:.*)'block \(\d+, \d+\) thread \d+")


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str  # below csrc
    original: str
    replacement: str
    test: str
    seen_as: tuple[str, str]
    says: str = ""  # besides: what else the report must hold
