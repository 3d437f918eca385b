# SPDX-License-Identifier: Apache-2.0
"""Plants each bug of the table, and asks the test that is named there whether it sees it.

A bug is a mutated copy of one header, in a folder that precedes csrc on the include path of the
kernels: only those are compiled anew, the runtime and the expected results are not.
"""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.table import MUTANTS, Mutant
from tests.standalone.build import BUILD, CSRC, Program, build, instances_of
from tests.standalone.execute import execute

# Races between blocks show where all blocks are resident.
SCHEDULES = {"plain": [], "asan": [], "tsan": ["--seeds", "3"]}
NAMED = r"\w+: block \(\d+, \d+\) thread \d+: the sanitizer's report"
SECONDS = 120  # for one test; a bug may well be an endless loop


class TableError(Exception):
    """The table does not fit the sources."""


@dataclass(frozen=True)
class Verdict:
    mutant: Mutant
    caught: bool
    says: str  # the test's message, or why the bug is not caught


def mutated(mutant: Mutant) -> str:
    """The text of the mutated file."""
    text = (CSRC / mutant.file).read_text()
    count = text.count(mutant.original)
    if count != 1:
        raise TableError(
            f"{mutant.name}: the original text occurs {count} times in csrc/{mutant.file}, "
            f"expected once; remedy: bring tests/mutants/table.py up to date:\n{mutant.original}"
        )
    return text.replace(mutant.original, mutant.replacement)


def _write_if_changed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _plant(mutant: Mutant, instances: dict[str, list[str]]) -> Program:
    folder = BUILD / "mutants" / mutant.name
    _write_if_changed(folder / "overlay" / mutant.file, mutated(mutant))
    program = folder / "checks"
    program.unlink(missing_ok=True)  # an old one would hide that this one does not compile
    return Program(program, mutant.seen_as[0], tuple(instances[mutant.test]), folder / "overlay")


def _judge(mutant: Mutant, program: Program) -> Verdict:
    kind, pattern = mutant.seen_as
    if not program.path.exists():
        return Verdict(mutant, False, "does not compile")
    try:
        code, output = execute(program, [mutant.test, *SCHEDULES[kind]], SECONDS)
    except subprocess.TimeoutExpired:
        return Verdict(mutant, False, f"no answer in {SECONDS} s")
    found = re.search(pattern, output)
    if code == 0 or found is None:
        return Verdict(
            mutant, False, f"expected /{pattern}/, got (status {code}):\n{output[-2000:]}"
        )
    if kind == "asan" and not re.search(NAMED, output):
        return Verdict(mutant, False, f"the report names no thread:\n{output[-2000:]}")
    if mutant.says and not re.search(mutant.says, output):
        return Verdict(mutant, False, f"expected /{mutant.says}/ as well:\n{output[-2000:]}")
    line = output[found.start() :].splitlines()[0]
    return Verdict(mutant, True, line[:160])


def unmodified(mutants: list[Mutant]) -> dict[str, Program]:
    """The programs that run the same tests on the kernels as they are, by kind."""
    programs = {}
    for kind in sorted({mutant.seen_as[0] for mutant in mutants}):
        tests = sorted({mutant.test for mutant in mutants if mutant.seen_as[0] == kind})
        needed = sorted({name for names in instances_of(*tests).values() for name in names})
        programs[kind] = Program(BUILD / kind / "tests_of_mutants", kind, tuple(needed))
    return programs


def run(mutants: list[Mutant] = MUTANTS, jobs: int = 2) -> bool:
    """Prints a line per bug and `caught X of X planted bugs`; whether all were caught."""
    instances = instances_of(*sorted({mutant.test for mutant in mutants}))
    originals = unmodified(mutants)
    build(list(originals.values()), jobs)
    planted = {mutant.name: _plant(mutant, instances) for mutant in mutants}
    build(list(planted.values()), jobs, keep_going=True)

    with ThreadPoolExecutor(jobs) as pool:
        kept = list(pool.map(lambda item: _passes(*item, mutants), originals.items()))
        verdicts = list(pool.map(lambda mutant: _judge(mutant, planted[mutant.name]), mutants))
    for verdict in verdicts:
        mutant, word = verdict.mutant, "caught" if verdict.caught else "MISSED"
        print(f"{word}  {mutant.name}  by {mutant.test} ({mutant.seen_as[0]}): {verdict.says}")
    caught = sum(verdict.caught for verdict in verdicts)
    print(f"caught {caught} of {len(mutants)} planted bugs")
    return all(kept) and caught == len(mutants)


def _passes(kind: str, program: Program, mutants: list[Mutant]) -> bool:
    """The tests hold on the unmodified kernels, or catching a bug would mean nothing."""
    tests = sorted({mutant.test for mutant in mutants if mutant.seen_as[0] == kind})
    code, output = execute(program, [*tests, *SCHEDULES[kind]], SECONDS * 5)
    if code != 0:
        print(f"FAILED without any bug ({kind}):\n{output[-4000:]}")
    return code == 0
