# SPDX-License-Identifier: Apache-2.0
"""The program that the sanitizers run on a device is right itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_program_runs_on_the_cpu() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sanitize", "--device", "cpu"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "all right" in done.stdout
