# SPDX-License-Identifier: Apache-2.0
"""Reads the machine code that nvcc put into a library: kernels, resources, instructions.

What `cuobjdump --dump-resource-usage` and `nvdisasm` would say, for the few facts that the gates
need and without those tools, which many CUDA installations lack. Fat binaries and .nv.info are not
documented by NVIDIA; tests/test_compile_gates.py holds this reader against kernels with known
resources, and against the tools where they are installed.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FATBIN_MAGIC = struct.pack("<I", 0xBA55ED50)
KIND_MACHINE_CODE = 2  # 1 is PTX

SECTION_NOTHING_STORED = 8  # SHT_NOBITS: a size without bytes, as shared memory is

# .nv.info: (format, attribute, 16-bit value or size of what follows).
FORMAT_SIZED = 4
ATTRIBUTE_MAX_THREADS = 0x05  # __launch_bounds__
ATTRIBUTE_FRAME_SIZE = 0x11  # (symbol, bytes of stack)
ATTRIBUTE_REGISTERS = 0x2F  # (symbol, per thread)

# sm_90 and later: what the driver keeps of each block's shared memory counts as the kernel's.
RESERVED_SHARED_BYTES = 1024

INSTRUCTION_BYTES = 16

# The low nine bits of an instruction, on sm_80 and sm_90 alike; the next three say where its
# operands come from.
MNEMONICS = {
    0x012: "LOP3",
    0x016: "PRMT",
    0x021: "FADD",
    0x030: "HADD2",
    0x031: "HFMA2",
    0x032: "HMUL2",
    0x035: "HFMA2",  # .MMA, its other pipe
    0x03B: "LDSM",
    0x03C: "HMMA",
    0x118: "NOP",
    0x11D: "BAR",
    0x141: "BSYNC",
    0x144: "CALL",
    0x145: "BSSY",
    0x147: "BRA",
    0x148: "WARPSYNC",
    0x14D: "EXIT",
    0x150: "RET",
    0x181: "LDG",
    0x183: "LDL",
    0x184: "LDS",
    0x187: "STL",
    0x1C5: "WARPGROUP",  # .ARRIVE and .DEPBAR
    0x1F0: "HGMMA",
}  # fmt: skip
CONTROL = {"BAR", "BSYNC", "CALL", "BSSY", "BRA", "WARPSYNC", "EXIT", "RET"}


@dataclass(frozen=True)
class Kernel:
    """One kernel as compiled for one architecture."""

    symbol: str  # mangled
    arch: str  # "sm_90a"
    compiler: str  # "13.0"
    registers: int  # per thread
    stack_bytes: int  # per thread
    shared_bytes: int  # static
    max_threads: int  # per block; 0 if unbounded
    instructions: tuple[str, ...]  # mnemonics, "?" for those that MNEMONICS lacks

    @property
    def spill_instructions(self) -> int:
        """Local-memory accesses: spilled registers, and arrays indexed at run time."""
        return self.instructions.count("LDL") + self.instructions.count("STL")

    def tensor_core_stretches(self) -> list[Counter[str]]:
        """Those that have an HMMA."""
        return [stretch for stretch in self.stretches() if stretch["HMMA"]]

    def stretches(self) -> list[Counter[str]]:
        """Instruction counts of the runs between control instructions."""
        stretches: list[Counter[str]] = [Counter()]
        for mnemonic in self.instructions:
            if mnemonic in CONTROL:
                stretches.append(Counter())
            else:
                stretches[-1][mnemonic] += 1
        return stretches


class UnreadableCubin(ValueError):
    """The library holds machine code that this module cannot read."""


@dataclass(frozen=True)
class _Section:
    name: str
    size: int
    content: bytes


def kernels(library: Path) -> list[Kernel]:
    """Every kernel of every architecture in a library, an object file or a cubin."""
    return [kernel for cubin in machine_code(library) for kernel in _kernels_of_cubin(cubin)]


def machine_code(library: Path) -> list[bytes]:
    """The cubins in a library or an object file; a cubin itself."""
    data = library.read_bytes()
    # A cubin is an ELF file for machine 190, EM_CUDA.
    if data[:4] == b"\x7fELF" and struct.unpack_from("<H", data, 18)[0] == 190:
        return [data]
    return list(_cubins(data))


def _cubins(data: bytes) -> Iterator[bytes]:
    start = data.find(FATBIN_MAGIC)
    while start >= 0:
        header_size, size = struct.unpack_from("<HQ", data, start + 6)
        entry, end = start + header_size, start + header_size + size
        while entry < end:
            kind, _, entry_header, payload = struct.unpack_from("<HHIQ", data, entry)
            if kind == KIND_MACHINE_CODE:
                content = data[entry + entry_header : entry + entry_header + payload]
                if content[:4] != b"\x7fELF":
                    raise UnreadableCubin(
                        "compile gates: the machine code is compressed; build without "
                        "-Xfatbin=-compress-all"
                    )
                yield content
            entry += entry_header + payload
        start = data.find(FATBIN_MAGIC, start + header_size)


def _sections(elf: bytes) -> list[_Section]:
    (table,) = struct.unpack_from("<Q", elf, 40)
    entry_size, count, names_index = struct.unpack_from("<HHH", elf, 58)
    rows = [struct.unpack_from("<IIQQQQIIQQ", elf, table + i * entry_size) for i in range(count)]
    names = rows[names_index][4]
    sections = []
    for name, kind, _, _, offset, size, *_ in rows:
        stored = 0 if kind == SECTION_NOTHING_STORED else size
        text = elf[names + name : elf.index(b"\0", names + name)].decode()
        sections.append(_Section(text, size, elf[offset : offset + stored]))
    return sections


def _attributes(info: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(attribute, its 32-bit words) of a .nv.info section."""
    position = 0
    while position < len(info):
        layout, attribute, value = struct.unpack_from("<BBH", info, position)
        position += 4
        if layout == FORMAT_SIZED:
            yield attribute, struct.unpack_from(f"<{value // 4}I", info, position)
            position += value
        else:
            yield attribute, (value,)


def _kernels_of_cubin(elf: bytes) -> Iterator[Kernel]:
    sections = {section.name: section for section in _sections(elf)}
    if ".nv.info" not in sections:
        return  # no kernel in it
    tool = sections[".note.nv.tkinfo"].content.decode("latin-1")
    arch, release = re.search(r"-arch (sm_\w+)", tool), re.search(r"release (\d+\.\d+)", tool)
    if arch is None or release is None:
        raise UnreadableCubin("compile gates: .note.nv.tkinfo names no architecture or release")
    reserved = RESERVED_SHARED_BYTES if ".nv.shared.reserved.0" in sections else 0
    symbols, names = sections[".symtab"].content, sections[".strtab"].content

    of_symbol: dict[tuple[int, str], int] = {}
    for attribute, words in _attributes(sections[".nv.info"].content):
        if attribute in (ATTRIBUTE_FRAME_SIZE, ATTRIBUTE_REGISTERS):
            (name,) = struct.unpack_from("<I", symbols, 24 * words[0])
            symbol = names[name : names.index(b"\0", name)].decode()
            of_symbol[attribute, symbol] = words[1]

    for name, section in sections.items():
        symbol = name.removeprefix(".text.")
        if symbol == name:
            continue
        shared = sections.get(f".nv.shared.{symbol}")
        own_info = dict(_attributes(sections[f".nv.info.{symbol}"].content))
        code = section.content
        opcodes = (
            struct.unpack_from("<H", code, i)[0] & 0x1FF
            for i in range(0, len(code), INSTRUCTION_BYTES)
        )
        yield Kernel(
            symbol=symbol,
            arch=arch[1],
            compiler=release[1],
            registers=of_symbol[ATTRIBUTE_REGISTERS, symbol],
            stack_bytes=of_symbol[ATTRIBUTE_FRAME_SIZE, symbol],
            shared_bytes=shared.size - reserved if shared else 0,
            max_threads=own_info.get(ATTRIBUTE_MAX_THREADS, (0,))[0],
            instructions=tuple(MNEMONICS.get(opcode, "?") for opcode in opcodes),
        )
