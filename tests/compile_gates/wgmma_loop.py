# SPDX-License-Identifier: Apache-2.0
"""The wgmma kernels' main loop in machine code: no register of a running wgmma is touched, and none
waits for all before it.

ptxas says in a remark at most (C7510 and its neighbours) that it serialized wgmma, and nothing at
all when a wait that is too weak lets it reuse registers of one that runs. Both show in SASS.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from tests.compile_gates.cubin import machine_code
from tests.compile_gates.kernel_names import readable

TURNS = 3  # of the loop, straight through: groups stay in flight from one to the next

WITHOUT_DESTINATION = (
    "BRA", "BSSY", "BSYNC", "BAR", "EXIT", "NOP", "R2UR", "ST", "STG", "STS", "SYNCS", "VOTEU",
    "WARPGROUP", "WARPSYNC", "ISETP", "PLOP3", "DEPBAR", "U", "S2UR", "MEMBAR", "FENCE",
)  # fmt: skip


class NoDisassembler(RuntimeError):
    """The message says where one was looked for."""


@dataclass(frozen=True)
class Instruction:
    address: str
    text: str  # without its predicate

    @property
    def mnemonic(self) -> str:
        return self.text.split()[0]

    @property
    def operands(self) -> list[str]:
        return [part.strip() for part in self.text[len(self.mnemonic) :].split(",")]


@dataclass(frozen=True)
class Loop:
    """What the gates hold, of one kernel."""

    name: str
    arch: str
    instructions: int  # of a turn
    wgmmas: int
    complaints: tuple[str, ...]


def find_disassembler() -> str:
    """nvdisasm: of the CUDA toolkit, or of a Triton wheel."""
    places = [
        shutil.which("nvdisasm"), f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin/nvdisasm",
    ]  # fmt: skip
    try:
        import triton

        places.append(f"{triton.__path__[0]}/backends/nvidia/bin/nvdisasm")
    except ImportError:
        pass
    for place in places:
        if place and Path(place).exists():
            return str(place)
    raise NoDisassembler("no nvdisasm on PATH, in CUDA_HOME or in Triton")


def wgmma_loops(library: Path) -> list[Loop]:
    """Of every wgmma kernel in a library, an object file or a cubin."""
    disassembler = find_disassembler()
    loops = []
    for cubin in machine_code(library):
        if b"wgmma_kernel" not in cubin:
            continue
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(cubin)
            file.flush()
            listing = subprocess.check_output([disassembler, "-c", file.name], text=True)
        loops += loops_of_listing(listing)
    return sorted(loops, key=lambda loop: loop.name)


def loops_of_listing(listing: str) -> list[Loop]:
    arch = re.search(r"^\s*\.target\s+(\w+)", listing, re.MULTILINE)
    found = []
    for part in re.split(r"^\s*\.section\s+\.text\.", listing, flags=re.MULTILINE)[1:]:
        symbol = re.split(r"[,\s]", part, maxsplit=1)[0]
        name = readable(symbol)
        if not name.startswith("wgmma_kernel"):
            continue
        body = main_loop(part)
        found.append(
            Loop(
                name=name,
                arch=arch[1] if arch else "",
                instructions=sum(i.address != "" for i in body),
                wgmmas=sum(i.mnemonic.startswith("HGMMA") for i in body),
                complaints=tuple(complaints_of(name, body)),
            )
        )
    return found


def main_loop(kernel: str) -> list[Instruction]:
    """The instructions of the shortest backward branch around an HGMMA; empty if there is none.
    Labels stand among them."""
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    best: list[Instruction] = []
    for line in kernel.splitlines():
        label = re.match(r"\s*(\.L\w+):", line)
        if label:
            labels[label[1]] = len(code)
            code.append(Instruction("", label[1]))
            continue
        found = re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(.*?)\s*;", line)
        if not found:
            continue
        code.append(Instruction(found[1], found[2]))
        target = re.match(r"BRA.*`\((\.L\w+)\)", found[2])
        if target and target[1] in labels:
            body = code[labels[target[1]] :]
            if any(i.mnemonic.startswith("HGMMA") for i in body) and (
                not best or len(body) < len(best)
            ):
                best = body
    return best


def complaints_of(name: str, loop: list[Instruction]) -> list[str]:
    """What must not be: the first instruction that does it, and how many there are."""
    if not loop:
        return [f"{name}: no loop with HGMMA found"]
    found: dict[str, str] = {}
    running: deque[list[tuple[set[int], set[int]]]] = deque()  # groups of (accumulators, A)
    open_group: list[tuple[set[int], set[int]]] = []
    for instruction in _skipped(loop):
        where = f"{name}: {instruction.address} {instruction.text}"
        found[instruction.address] = f"{where}: under a condition"
    for instruction in (i for i in loop * TURNS if i.address):
        mnemonic, operands = instruction.mnemonic, instruction.operands
        where = f"{name}: {instruction.address} {instruction.text}"
        if mnemonic.startswith("HGMMA"):
            columns = re.match(r"HGMMA\.64x(\d+)x16", mnemonic)
            if columns is None:
                found[instruction.address] = f"{where}: a shape that this check does not know"
                continue
            open_group.append((_registers(operands[0], int(columns[1]) // 2),
                               _registers(operands[1], 4)))  # fmt: skip
            if "gsb0" in operands:
                running.append(open_group)
                open_group = []
            continue
        if mnemonic.startswith("WARPGROUP.DEPBAR"):
            left = int(operands[-1], 16)
            if left == 0:
                found[instruction.address] = f"{where}: waits for all wgmma: serialized"
            while len(running) > left:
                running.popleft()
            continue
        written = _written(instruction)
        read = set().union(*(_registers(o, 1) for o in operands)) if operands else set()
        for accumulators, a in [w for group in (*running, open_group) for w in group]:
            if written & a:
                found[instruction.address] = f"{where}: writes operand A of a running wgmma"
            if (written | read) & accumulators:
                found[instruction.address] = f"{where}: touches the sums of a running wgmma"
    if not found:
        return []
    return [f"{min(found.values())}; {len(found)} such instructions in the loop"]


def _skipped(loop: list[Instruction]) -> list[Instruction]:
    """wgmma and waits that a branch inside the loop jumps over."""
    labels = {i.text: place for place, i in enumerate(loop) if not i.address}
    found = []
    for place, instruction in enumerate(loop):
        target = re.match(r"BRA.*`\((\.L\w+)\)", instruction.text)
        if target and labels.get(target[1], 0) > place:
            jumped_over = loop[place : labels[target[1]]]
            found += [i for i in jumped_over if i.mnemonic.startswith(("HGMMA", "WARPGROUP"))]
    return found


def _registers(operand: str, count: int) -> set[int]:
    found = re.match(r"[-|~!\[]*R(\d+)", operand)
    return set(range(int(found[1]), int(found[1]) + count)) if found else set()


def _written(instruction: Instruction) -> set[int]:
    family = instruction.mnemonic.split(".")[0]
    if family in WITHOUT_DESTINATION or family.startswith("U"):
        return set()
    wide = {".128": 4, ".64": 2, ".WIDE": 2}
    count = max([width for mark, width in wide.items() if mark in instruction.mnemonic], default=1)
    return _registers(instruction.operands[0], count)
