# SPDX-License-Identifier: Apache-2.0
"""The committed budget: what each kernel may cost. More fails; less asks for a lower budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.compile_gates.measure import Figures

BUDGET_FILE = Path(__file__).with_name("budget.txt")
UPDATE = "python -m tests.compile_gates --update"

HEADER = """\
# What every kernel may cost; tests/test_compile_gates.py holds the built library against it.
# Per architecture: registers per thread, and instructions per 8 weights around the tensor cores
# (without tensor cores and loads; - where there are none). Spills and stack are 0 for every kernel.
# Lowered by `{update}`, which a person reads before committing.
compiler {release}
"""


@dataclass(frozen=True)
class Limit:
    shared_bytes: int
    registers: int
    instructions: float


@dataclass(frozen=True)
class Budget:
    release: str  # of the compiler whose code was measured
    limits: dict[tuple[str, str], Limit]  # by kernel and architecture


def read_budget(path: Path = BUDGET_FILE) -> Budget:
    release, architectures, limits = "", [], {}
    for line in path.read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith("compiler "):
            release = line.split()[1]
        elif line.startswith("kernel "):
            architectures = line.split()[2:]
        else:
            columns = 1 + 2 * len(architectures)
            name, *values = line.rsplit(maxsplit=columns)
            for i, arch in enumerate(architectures):
                registers, instructions = values[1 + 2 * i : 3 + 2 * i]
                if registers == "-":  # a kernel of the other architectures
                    continue
                limits[name.strip(), arch] = Limit(
                    shared_bytes=int(values[0]),
                    registers=int(registers),
                    instructions=0.0 if instructions == "-" else float(instructions),
                )
    return Budget(release, limits)


def write_budget(figures: list[Figures], release: str, path: Path = BUDGET_FILE) -> None:
    architectures = sorted({f.arch for f in figures})
    by_key = {(f.name, f.arch): f for f in figures}
    names = list(dict.fromkeys(f.name for f in figures))
    width = max(map(len, names))
    lines = [f"{'kernel':{width}} {'shared':>7}" + "".join(f" {a:>10}" for a in architectures)]
    for name in names:
        shared = max(f.shared_bytes for f in figures if f.name == name)
        row = f"{name:{width}} {shared:7}"
        for arch in architectures:
            f = by_key.get((name, arch))
            registers = f.registers if f else "-"
            count = f"{f.instructions_per_8_weights:.1f}" if f and f.instructions else "-"
            row += f" {registers:>5} {count:>4}"
        lines.append(row)
    path.write_text(HEADER.format(update=UPDATE, release=release) + "\n".join(lines) + "\n")


def complaints(figures: list[Figures], release: str, budget: Budget) -> list[str]:
    """What must not be. Spills and stack are judged always; the rest only for the architectures
    and the compiler release of the budget, for another release allocates registers otherwise."""
    found = []
    for f in figures:
        where = f"{f.name}, {f.arch}"
        if f.stack_bytes:
            found.append(f"{where}: {f.stack_bytes} bytes of stack, expected none")
        if f.spill_instructions:
            found.append(f"{where}: {f.spill_instructions} spill instructions, expected none")
    if release != budget.release:
        return found

    architectures = {arch for _, arch in budget.limits} & {f.arch for f in figures}
    measured = {(f.name, f.arch): f for f in figures if f.arch in architectures}
    for key in sorted(measured.keys() - budget.limits.keys()):
        found.append(f"{', '.join(key)}: not in {BUDGET_FILE.name}; add it: {UPDATE}")
    for key in sorted(budget.limits.keys() - measured.keys()):
        if key[1] in architectures:
            found.append(
                f"{', '.join(key)}: in {BUDGET_FILE.name} but not in the library: {UPDATE}"
            )
    for key, limit in budget.limits.items():
        if key in measured:
            found += _over(measured[key], limit)
    return found


def _pairs(f: Figures, limit: Limit) -> list[tuple[str, float, float]]:
    return [
        ("registers", f.registers, limit.registers),
        ("bytes of shared memory", f.shared_bytes, limit.shared_bytes),
        ("instructions per 8 weights", f.instructions_per_8_weights, limit.instructions),
    ]


def _over(f: Figures, limit: Limit) -> list[str]:
    return [
        f"{f.name}, {f.arch}: {got:g} {what}, expected at most {allowed:g}"
        for what, got, allowed in _pairs(f, limit)
        if got > allowed
    ]


def hints(figures: list[Figures], release: str, budget: Budget) -> list[str]:
    """Where the budget is higher than it need be."""
    if release != budget.release:
        return [
            f"compiled by nvcc {release}; the budget was measured with {budget.release}, so only "
            "spills and stack are judged"
        ]
    found = []
    for f in figures:
        limit = budget.limits.get((f.name, f.arch))
        for what, got, allowed in _pairs(f, limit) if limit else []:
            if got < allowed:
                found.append(f"{f.name}, {f.arch}: {got:g} {what}, the budget is {allowed:g}")
    return [*found, f"lower the budget: {UPDATE}"] if found else []
