# SPDX-License-Identifier: Apache-2.0
"""Runs the cases of `files.py` in processes of their own: a crash or a hang of theirs is a failure
here, with the command that replays it. Seeds: target and number of the case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import CASES
from tests.fuzz.files import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS = 900


def run(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.fuzz.files", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    replay = done.stdout.strip().rpartition("\n")[2]
    assert done.returncode == 0, f"{replay}\nended with {done.returncode}\n{done.stderr[-4000:]}"


# A process takes seconds to start: few cases share one.
@pytest.mark.parametrize("target", TARGETS if CASES > 100 else ["all"])
def test_the_answer_is_right_or_a_refusal(target: str) -> None:
    run(target, "0", str(CASES))
