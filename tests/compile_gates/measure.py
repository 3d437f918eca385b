# SPDX-License-Identifier: Apache-2.0
"""From compiled kernels to the figures that the budget limits."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.compile_gates.cubin import Kernel, kernels
from tests.compile_gates.kernel_names import readable

ROOT = Path(__file__).resolve().parents[2]

# Of a kernel's main loop: HMMAs that take 8 weights of a lane, for one step of 8 rows of A. In
# gemm_kernel weights are operand A of m16n8k16: 16 x 16, eight per lane. Others are not counted.
HMMA_PER_8_WEIGHTS = {"gemm_kernel": 1}

# KB of shared memory per SM, of which each block's launch takes one more for the system; warps per
# SM (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
SM_LIMITS = {"sm_80": (164, 64), "sm_86": (100, 48), "sm_89": (100, 48), "sm_90a": (228, 64)}


@dataclass(frozen=True)
class Figures:
    """What one kernel costs on one architecture."""

    name: str
    arch: str
    registers: int
    stack_bytes: int
    spill_instructions: int
    static_shared_bytes: int
    dynamic_shared_bytes: int
    threads: int  # 0: not bounded
    # Per 8 weights of a lane, in the stretch of code around the tensor cores: masking, byte swaps,
    # arithmetic on pairs, all else but tensor cores and loads. Empty without tensor cores.
    instructions: dict[str, float]

    @property
    def shared_bytes(self) -> int:
        return self.static_shared_bytes + self.dynamic_shared_bytes

    @property
    def instructions_per_8_weights(self) -> float:
        return round(sum(self.instructions.values()), 1)

    @property
    def blocks_per_sm(self) -> int | None:
        if self.arch not in SM_LIMITS or not self.threads:
            return None
        shared_kb, warps = SM_LIMITS[self.arch]
        block_warps = -(-self.threads // 32)
        # Each quarter of an SM has 16384 registers, given to warps 256 at a time.
        per_warp = -(-self.registers * 32 // 256) * 256
        by_registers = 16384 // per_warp * 4 // block_warps
        by_shared = shared_kb * 1024 // (self.shared_bytes + 1024)
        return min(by_registers, by_shared, warps // block_warps, 32)


def measure(library: Path) -> tuple[list[Figures], str]:
    """The figures of every kernel, sorted by name and architecture, and the compiler's release."""
    compiled = kernels(library)
    if not compiled:
        raise ValueError(f"compile gates: {library} holds no machine code of a GPU")
    dynamic = _dynamic_shared_bytes()
    # A kernel instantiated in two sources is there twice; the same, so one stands for both.
    unique = {(kernel.arch, kernel.symbol): kernel for kernel in compiled}
    figures = [_figures(kernel, dynamic) for kernel in unique.values()]
    releases = {kernel.compiler for kernel in compiled}
    return sorted(figures, key=lambda f: (_natural(f.name), f.arch)), " and ".join(sorted(releases))


def _natural(name: str) -> list[tuple[bool, int, str]]:
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", name)]


def _figures(kernel: Kernel, dynamic: list[tuple[set[str], int]]) -> Figures:
    name = readable(kernel.symbol)
    words = set(name.split())
    asked = [size for parameters, size in dynamic if parameters <= words]
    return Figures(
        name=name,
        arch=kernel.arch,
        registers=kernel.registers,
        stack_bytes=kernel.stack_bytes,
        spill_instructions=kernel.spill_instructions,
        static_shared_bytes=kernel.shared_bytes,
        dynamic_shared_bytes=asked[0] if asked else 0,
        threads=kernel.max_threads,
        instructions=_instructions(kernel, name),
    )


def _instructions(kernel: Kernel, name: str) -> dict[str, float]:
    per_8_weights = HMMA_PER_8_WEIGHTS.get(name.split()[0])
    stretches = kernel.tensor_core_stretches()
    if per_8_weights is None or not stretches:
        return {}
    counts = max(stretches, key=lambda stretch: stretch["HMMA"])
    steps = re.search(r"m_steps=(\d+)", name)
    assert steps is not None, f"compile gates: {name} does not say m_steps"
    groups = counts["HMMA"] / (per_8_weights * int(steps[1]))
    half2 = counts["HFMA2"] + counts["HMUL2"] + counts["HADD2"]
    kinds = {"lop3": counts["LOP3"], "prmt": counts["PRMT"], "half2": half2, "other": counts["?"]}
    return {kind: count / groups for kind, count in kinds.items()}


def _dynamic_shared_bytes() -> list[tuple[set[str], int]]:
    """(words of a kernel's name, bytes) from dynamic_shared.cpp."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise RuntimeError("compile gates: neither g++ nor c++ found; install a C++20 compiler")
    source = Path(__file__).with_name("dynamic_shared.cpp")
    # The emulator's twins stand in for CUDA's headers.
    folders = [ROOT / "tests" / "emulator", ROOT / "csrc", ROOT / "csrc" / "cuda"]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "dynamic_shared"
        includes = [f"-I{path}" for path in folders]
        subprocess.run([compiler, "-std=c++20", *includes, "-o", program, source], check=True)
        lines = subprocess.check_output([program], text=True).splitlines()
    rows = [line.rsplit(" ", 1) for line in lines]
    return [(set(words.split()), int(size)) for words, size in rows]
