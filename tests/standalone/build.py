# SPDX-License-Identifier: Apache-2.0
"""Builds the stand-alone programs: ninja files, one per kind of instrumentation.

`plain` has no sanitizer; `asan` has AddressSanitizer and UBSan; `tsan` has ThreadSanitizer in the
kernels alone, because the runtime is the hardware (tests/emulator/sanitizers.h).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EMULATOR = ROOT / "tests" / "emulator"
CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "standalone"

RUNTIME = [
    "async_copy", "bank_conflicts", "collectives", "fiber", "mbarrier", "memory",
    "scheduler", "tensor_copy", "warpgroup",
]  # fmt: skip
PROGRAM = ["main", "checks", "fixup_case", "gemm_case", "instances", "repack_case", "round_case"]


@dataclass(frozen=True)
class Flags:
    runtime: str
    kernels: str
    link: str


COMMON = (
    "-std=c++20 -g1 -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off -fno-strict-aliasing"
    " -fno-omit-frame-pointer"
)
# AVX2 and F16C make the emulated tensor cores some ten times faster, and every build runs here.
ARCHITECTURE = "-march=native"
KINDS = {
    "plain": Flags("-O2", "-O1", ""),
    "asan": Flags(
        "-O2 -fsanitize=address,undefined -fno-sanitize-recover=all",
        "-O1 -fsanitize=address,undefined -fno-sanitize-recover=all",
        "-fsanitize=address,undefined",
    ),
    # Loops of the runtime must not become calls of memcpy: TSan intercepts those.
    "tsan": Flags(
        "-O2 -DPADMARLIN_TSAN -fno-tree-loop-distribute-patterns",
        "-O1 -fsanitize=thread",
        "-fsanitize=thread",
    ),
}


@dataclass(frozen=True)
class Program:
    """One executable: the named tests and the kernels they may launch."""

    path: Path
    kind: str
    instances: tuple[str, ...]  # "gemm <template arguments>", "repack ...", "fixup ..."
    overlay: Path | None = None  # of the instances alone: headers found before those of csrc


def tool(name: str) -> str:
    """A build tool, from this Python's environment (where pip puts it) or from PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise RuntimeError(f"standalone: {name} not found; remedy: pip install {name}")
    return found


def _compile(out: Path, source: Path, flags: str) -> str:
    return (
        f"build {out}: cxx {source}\n"
        f"  flags = {flags} {COMMON} {ARCHITECTURE} -I{HERE} -I{EMULATOR} -I{CSRC}\n"
    )


def _statements(program: Program) -> dict[Path, str]:
    """What builds the program, by output."""
    flags, shared = KINDS[program.kind], BUILD / program.kind
    made = {}
    for folder, names in ((EMULATOR, RUNTIME), (HERE, PROGRAM)):
        for name in names:
            out = shared / f"{name}.o"
            made[out] = _compile(out, folder / f"{name}.cpp", flags.runtime)
    own, include = shared, ""
    if program.overlay is not None:
        own, include = program.path.parent, f" -I{program.overlay}"
    for instance in program.instances:
        family, arguments = instance.split(" ", 1)
        out = own / (re.sub(r"\W+", "_", instance) + ".o")
        define = f"'-DPADMARLIN_INSTANCE={arguments}'{include}"
        source = HERE / f"{family}_instance.cpp"
        made[out] = _compile(out, source, f"{flags.kernels} {define}")
    objects = " ".join(map(str, made))
    made[program.path] = f"build {program.path}: link {objects}\n  flags = {flags.link}\n"
    return made


def build(programs: list[Program], jobs: int = 2, keep_going: bool = False) -> None:
    """Builds what is out of date; with `keep_going`, whatever can be built."""
    BUILD.mkdir(parents=True, exist_ok=True)
    launcher = shutil.which("ccache") or ""
    statements: dict[Path, str] = {}
    for program in programs:
        statements |= _statements(program)
    rules = (
        f"builddir = {BUILD}\n"
        f"rule cxx\n  command = {launcher} g++ $flags -MMD -MF $out.d -c $in -o $out\n"
        "  depfile = $out.d\n  deps = gcc\n"
        "rule link\n  command = g++ $in $flags -o $out\n"
    )
    file = BUILD / f"{programs[0].path.name}.ninja"
    file.write_text(rules + "".join(statements.values()))
    command = [tool("ninja"), "-f", str(file), "-j", str(jobs), "--quiet"]
    result = subprocess.run(
        [*command, *(["-k", "0"] if keep_going else [])],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0 and not keep_going:
        raise RuntimeError(f"standalone: the build failed:\n{result.stdout}{result.stderr}")


def instances_of(*tests: str) -> dict[str, list[str]]:
    """The kernels that the named tests launch, by test; of all tests without a name."""
    lister = Program(BUILD / "plain" / "list", "plain", ())
    build([lister])
    command = [str(lister.path), "--instances", *tests]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        test, instance = line.split(" ", 1)
        found.setdefault(test, []).append(instance)
    return found


def program_for(kind: str, *tests: str) -> Program:
    """The program of this kind with all that the named tests need; not yet built."""
    needed = sorted({name for names in instances_of(*tests).values() for name in names})
    return Program(BUILD / kind / "checks", kind, tuple(needed))
