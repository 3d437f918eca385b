# SPDX-License-Identifier: Apache-2.0
"""Runs a stand-alone program under the options its sanitizer needs."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

from tests.standalone.build import Program

OPTIONS = {
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "ASAN_OPTIONS": "detect_leaks=0",  # fibers are abandoned, not unwound, when a launch fails
    "TSAN_OPTIONS": "halt_on_error=1",
}


@functools.cache
def _fixed_addresses() -> list[str]:
    """TSan's shadow memory has no room for addresses that 32 random bits have moved."""
    command = ["setarch", "-R"]
    if shutil.which(command[0]) is None:
        return []
    allowed = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if allowed else []


def execute(program: Program, arguments: list[str], seconds: int) -> tuple[int, str]:
    """Exit status, and all that was printed."""
    prefix = _fixed_addresses() if program.kind == "tsan" else []
    done = subprocess.run(
        [*prefix, str(program.path), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        timeout=seconds, env={**os.environ, **OPTIONS}, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout
