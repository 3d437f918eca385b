# SPDX-License-Identifier: Apache-2.0
"""python -m tests.compile_gates [--update] [library]: the table, then what is over budget."""

from __future__ import annotations

import sys
from pathlib import Path

from padmarlin._extension import LIBRARY
from tests.compile_gates.budget import complaints, hints, read_budget, write_budget
from tests.compile_gates.measure import ROOT, Figures, measure
from tests.compile_gates.wgmma_loop import NoDisassembler, wgmma_loops

KINDS = ("lop3", "prmt", "half2", "other")


def table(figures: list[Figures]) -> list[str]:
    width = max(len(f.name) for f in figures)
    head = f"{'registers':>9} {'stack':>5} {'spills':>6} {'static':>6} {'dynamic':>7} {'blocks':>6}"
    kinds = "".join(f" {kind:>5}" for kind in KINDS)
    lines = [
        f"{'':{width + 8}} {'':>9} {'':>5} {'':>6} {'shared':>6} {'shared':>7} {'per SM':>6}  "
        "instructions per 8 weights",
        f"{'kernel':{width}} {'arch':7} {head} {kinds}   all",
    ]
    for f in figures:
        blocks = "-" if f.blocks_per_sm is None else f.blocks_per_sm
        counts = "".join(f" {f.instructions[kind]:5.1f}" for kind in KINDS if f.instructions)
        total = f" {f.instructions_per_8_weights:5.1f}" if f.instructions else ""
        lines.append(
            f"{f.name:{width}} {f.arch:7} {f.registers:9} {f.stack_bytes:5} "
            f"{f.spill_instructions:6} {f.static_shared_bytes:6} {f.dynamic_shared_bytes:7} "
            f"{blocks:>6} {counts}{total}"
        )
    return lines


def build_time() -> str:
    """Ninja's record of the newest build folder: each output's last compilation."""
    logs = sorted(ROOT.glob("build/cmake*/.ninja_log"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return "build time unknown (no build/cmake*/.ninja_log)"
    seconds = {}
    for line in logs[-1].read_text().splitlines()[1:]:
        start, end, _, output, _ = line.split("\t")
        seconds[output] = (int(end) - int(start)) / 1000
    objects = {o: s for o, s in seconds.items() if o.endswith(".o")}
    if not objects:
        return "build time unknown (nothing compiled yet)"
    slowest = max(objects, key=lambda output: objects[output])
    return (
        f"compiled in {sum(objects.values()):.0f} s of one core, "
        f"the slowest source {Path(slowest).stem} in {objects[slowest]:.0f} s"
    )


def main(arguments: list[str]) -> int:
    update = "--update" in arguments
    paths = [Path(argument) for argument in arguments if argument != "--update"]
    library = paths[0] if paths else LIBRARY
    if not library.exists():
        print(f"compile gates: no {library}: build it with nvcc (make test)", file=sys.stderr)
        return 1
    figures, release = measure(library)
    if update:
        write_budget(figures, release)
    budget = read_budget()
    print("\n".join(table(figures)))
    for hint in hints(figures, release, budget):
        print("note:", hint)
    wrong = complaints(figures, release, budget)
    try:
        loops = wgmma_loops(library)
        for loop in loops:
            print(f"{loop.name}: {loop.instructions} instructions a turn, {loop.wgmmas} wgmma")
        wrong += [complaint for loop in loops for complaint in loop.complaints]
    except NoDisassembler as reason:
        print(f"note: the registers of running wgmma are not checked: {reason}")
    for complaint in wrong:
        print("FAILED:", complaint)
    kernels = len({f.name for f in figures})
    print(
        f"{kernels} kernels, {len(figures)} instances, nvcc {release}, "
        f"{library.stat().st_size / 2**20:.1f} MB, {build_time()}: "
        + (f"{len(wrong)} complaints" if wrong else "all within budget")
    )
    return 1 if wrong else 0


sys.exit(main(sys.argv[1:]))
