# SPDX-License-Identifier: Apache-2.0
"""Builds operators.cpp and kernels.cpp with the emulator's runtime into one library of operators.
Incremental; one process builds at a time."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

import torch

from benchmarks.measured_table import TableRow, write_rows
from padmarlin.ops import WEIGHT_SCHEMA
from tests.standalone.build import CSRC, EMULATOR, ROOT, RUNTIME, tool

HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "host"
EMPTY_OP = ROOT / "benchmarks" / "empty_op"  # its device is an H200 without the wgmma kernel

# As if it had been measured: of 8-bit weights in order, the scratch from 500 rows on.
MADE_UP = TableRow(90, 132, 4800, 8, False, None, 500, "2026-01-01", "abc", "made_up", "a test")


def measured_header() -> Path:
    """A folder with core/measured.h, to be found before csrc."""
    header = BUILD / "overlay" / "core" / "measured.h"
    header.parent.mkdir(parents=True, exist_ok=True)
    fresh = header.with_suffix(".new")
    fresh.write_text((CSRC / "core" / "measured.h").read_text())
    write_rows([MADE_UP], fresh)
    if not header.exists() or header.read_text() != fresh.read_text():
        fresh.replace(header)
    return header.parents[1]


def library() -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held until the file is closed
        return _build()


def _build() -> Path:
    home = Path(torch.__path__[0])
    common = "-O1 -std=c++20 -fPIC -fvisibility=hidden -march=native"
    kernels = (
        f"{common} -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off -fno-strict-aliasing"
        f" -I{EMULATOR} -I{CSRC}"
    )
    operators = (
        f"{common} -DTORCH_TARGET_VERSION=0x020a000000000000 -I{EMPTY_OP}"
        f" -I{measured_header()} -I{CSRC} -isystem{home / 'include'}"
        f" '-DPADMARLIN_WEIGHT_SCHEMA=\"{WEIGHT_SCHEMA}\"'"
    )
    sources = {HERE / "operators.cpp": operators, HERE / "kernels.cpp": kernels}
    sources |= {EMULATOR / f"{name}.cpp": kernels for name in RUNTIME}
    out = BUILD / "operators.so"
    statements = "".join(
        f"build {BUILD / source.stem}.o: cxx {source}\n  flags = {flags}\n"
        for source, flags in sources.items()
    )
    objects = " ".join(f"{BUILD / source.stem}.o" for source in sources)
    text = (
        f"builddir = {BUILD}\n"
        "rule cxx\n  command = g++ $flags -MMD -MF $out.d -c $in -o $out\n"
        "  depfile = $out.d\n  deps = gcc\n"
        "rule link\n  command = g++ -shared $in $flags -o $out\n"
        f"{statements}build {out}: link {objects}\n  flags = -L{home / 'lib'} -ltorch_cpu\n"
    )
    file = BUILD / "build.ninja"
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    command = [tool("ninja"), "-f", str(file), "-j", "2", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"host: the build failed:\n{done.stdout}{done.stderr}")
    return out
