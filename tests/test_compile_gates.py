# SPDX-License-Identifier: Apache-2.0
"""What the compiler made of the kernels: within the budget, without spills; and that the gates
would notice."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from padmarlin import _extension
from tests.compile_gates.budget import Budget, Limit, complaints, hints, read_budget, write_budget
from tests.compile_gates.cubin import MNEMONICS, RESERVED_SHARED_BYTES, Kernel, kernels
from tests.compile_gates.kernel_names import readable
from tests.compile_gates.measure import Figures, measure
from tests.conformance.build import CannotBuild, find_nvcc

built = pytest.mark.skipif(
    not _extension.LIBRARY.exists(), reason="no padmarlin/_C.so: built without nvcc"
)


@functools.cache
def built_figures() -> tuple[list[Figures], str]:
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("no C++ compiler to ask for the kernels' dynamic shared memory")
    return measure(_extension.LIBRARY)


# ---- the library


@built
def test_every_kernel_is_within_its_budget() -> None:
    figures, release = built_figures()
    wrong = complaints(figures, release, read_budget())
    assert not wrong, "\n".join(wrong)


@built
def test_every_kernel_has_a_readable_name() -> None:
    assert not [f.name for f in built_figures()[0] if f.name.startswith("_Z")]


# Per 8 weights (core/layout.h, enum Dequant). At 4 bits: four masks, and one byte swap for the
# upper half of k; at 8 bits two masks and two PRMTs that fetch a byte each. Then for each of four
# registers an FMA, and one multiplication for the addend of both columns; or a difference and a
# product; or a difference and three products.
HALF2 = {("two_field", 0): 5, ("one_field", 0): 5, ("two_field", 1): 8, ("one_field", 1): 8,
         ("wide", 1): 16}  # fmt: skip
MASKS = {4: (4, 1), 8: (2, 2)}


@built
def test_dequantization_takes_the_instructions_of_its_algebra() -> None:
    figures, release = built_figures()
    budget = read_budget()
    if release != budget.release:
        pytest.skip(f"compiled by nvcc {release}, instructions are known of {budget.release}")
    seen = set()
    for f in figures:
        found = re.match(r"gemm_kernel \w+ bits=(\d) (\w+) asymmetric=(\d)", f.name)
        if found is None or (f.name, f.arch) not in budget.limits:
            continue
        bits, dequant, asymmetric = int(found[1]), found[2], int(found[3])
        # Addresses take masks as well, fewer than one per 8 weights.
        counts = tuple(int(f.instructions[kind]) for kind in ("lop3", "prmt", "half2"))
        assert counts == (*MASKS[bits], HALF2[dequant, asymmetric]), f"{f.name}, {f.arch}"
        seen.add((bits, dequant, asymmetric))
    assert len(seen) in (0, 8)  # 0: none of the budget's architectures


@built
def test_partial_tiles_are_loaded_a_batch_at_a_time() -> None:
    """Four loads of cuda/fixup.cuh on their way before their 16 sums need the first: a load that is
    added at once would wait for L2, each in turn."""
    of_gemm = [k for k in kernels(_extension.LIBRARY) if "gemm_kernel" in k.symbol]
    one_by_one = [
        f"{readable(k.symbol)}, {k.arch}"
        for k in of_gemm
        if not any(s["LDG"] >= 4 and s["FADD"] >= 16 for s in k.stretches())
    ]
    assert of_gemm
    assert not one_by_one, "\n".join(one_by_one)


# ---- the budget


FIGURES = Figures(
    name="gemm_kernel half m_steps=1",
    arch="sm_80",
    registers=75,
    stack_bytes=0,
    spill_instructions=0,
    static_shared_bytes=0,
    dynamic_shared_bytes=49152,
    threads=128,
    instructions={"lop3": 4.0, "prmt": 1.0, "half2": 5.0, "other": 0.9},
)
KEY = (FIGURES.name, FIGURES.arch)
BUDGET = Budget("13.0", {KEY: Limit(shared_bytes=49152, registers=75, instructions=10.9)})


def test_equal_figures_pass_without_a_word() -> None:
    assert complaints([FIGURES], "13.0", BUDGET) == []
    assert hints([FIGURES], "13.0", BUDGET) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"registers": 76}, "76 registers, expected at most 75"),
        ({"static_shared_bytes": 4}, "49156 bytes of shared memory, expected at most 49152"),
        ({"instructions": {"lop3": 11.0}}, "11 instructions per 8 weights, expected at most 10.9"),
        ({"stack_bytes": 8}, "8 bytes of stack, expected none"),
        ({"spill_instructions": 2}, "2 spill instructions, expected none"),
        ({"name": "gemm_kernel half m_steps=2"}, "not in budget.txt; add it"),
    ],
)
def test_more_than_the_budget_fails(change: dict, message: str) -> None:
    found = complaints([dataclasses.replace(FIGURES, **change)], "13.0", BUDGET)
    assert any(message in complaint for complaint in found), found


def test_a_vanished_kernel_fails_and_another_architecture_does_not() -> None:
    other = dataclasses.replace(FIGURES, name="reduce_kernel half", instructions={})
    with_other = Budget("13.0", {**BUDGET.limits, (other.name, "sm_80"): Limit(49152, 75, 0.0)})
    assert complaints([other], "13.0", with_other) == [
        "gemm_kernel half m_steps=1, sm_80: in budget.txt but not in the library: "
        "python -m tests.compile_gates --update"
    ]
    assert complaints([dataclasses.replace(FIGURES, arch="sm_86")], "13.0", BUDGET) == []


def test_another_compiler_is_judged_for_spills_only() -> None:
    assert complaints([dataclasses.replace(FIGURES, registers=99)], "12.8", BUDGET) == []
    assert complaints([dataclasses.replace(FIGURES, stack_bytes=8)], "12.8", BUDGET) != []
    assert "only spills and stack are judged" in hints([FIGURES], "12.8", BUDGET)[0]


def test_fewer_registers_ask_for_a_lower_budget() -> None:
    found = hints([dataclasses.replace(FIGURES, registers=70)], "13.0", BUDGET)
    assert "70 registers, the budget is 75" in found[0]
    assert "--update" in found[-1]


def test_a_written_budget_reads_back(tmp_path: Path) -> None:
    only_hopper = dataclasses.replace(FIGURES, name="wgmma_kernel half", arch="sm_90a")
    reduce = dataclasses.replace(FIGURES, name="reduce_kernel half", instructions={})
    figures = [FIGURES, only_hopper, reduce]
    write_budget(figures, "13.0", tmp_path / "budget.txt")
    budget = read_budget(tmp_path / "budget.txt")
    assert budget.limits.keys() == {(f.name, f.arch) for f in figures}
    assert complaints(figures, "13.0", budget) == hints(figures, "13.0", budget) == []


def test_blocks_per_sm() -> None:
    assert FIGURES.blocks_per_sm == 3  # 3 * 49 KB of 164
    # 208 registers: 6656 per warp, two warps in each quarter of an SM.
    assert dataclasses.replace(FIGURES, registers=204).blocks_per_sm == 2
    assert dataclasses.replace(FIGURES, threads=0).blocks_per_sm is None


def test_mangled_names_become_words() -> None:
    gemm = (
        "_ZN9padmarlin11gemm_kernelILNS_5DtypeE1ELi4ELNS_7DequantE2ELb1ELi2EEEvNS_13GemmArgumentsEi"
    )
    assert readable(gemm) == "gemm_kernel bfloat16 bits=4 wide asymmetric=1 m_steps=2"
    assert readable("_ZN9padmarlin5otherILi1EEEvi") == "_ZN9padmarlin5otherILi1EEEvi"
    assert readable("plain") == "plain"


# ---- the reader of machine code

PLANTED = """
extern "C" __global__ void __launch_bounds__(96) with_shared(int* p) {
  __shared__ int x[100];
  x[threadIdx.x] = p[threadIdx.x];
  __syncthreads();
  p[threadIdx.x] = x[99 - threadIdx.x];
}
extern "C" __global__ void with_stack(int* p, int k) {
  int x[40];
  for (int i = 0; i < 40; ++i) x[i] = i * k;
  for (int i = 0; i < 9; ++i) x[p[i]] += p[i + 9];
  p[0] = x[k];
}
"""


def compiled(folder: Path, *options: str) -> list[Kernel]:
    (folder / "planted.cu").write_text(PLANTED)
    try:
        nvcc = find_nvcc()
    except CannotBuild as reason:
        pytest.skip(str(reason))
    command = [nvcc, "planted.cu", "-o", "planted", *options]
    subprocess.run(command, check=True, cwd=folder, stdin=subprocess.DEVNULL)
    return kernels(folder / "planted")


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_planted_stack_and_shared_memory_are_found(tmp_path: Path, arch: str) -> None:
    found = {kernel.symbol: kernel for kernel in compiled(tmp_path, "-cubin", f"-arch={arch}")}
    shared, stack = found["with_shared"], found["with_stack"]
    assert (shared.shared_bytes, shared.max_threads) == (400, 96)
    assert (shared.stack_bytes, shared.spill_instructions) == (0, 0)
    assert shared.instructions.count("BAR") == 1
    assert stack.stack_bytes == 160
    assert stack.spill_instructions > 0
    for kernel in found.values():
        assert kernel.arch == arch
        assert 8 <= kernel.registers <= 40


def test_compressed_machine_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compressed; build without -Xfatbin=-compress-all"):
        compiled(tmp_path, "-c", "-arch=sm_80", "-Xfatbin=-compress-all")


def tool(name: str) -> str:
    """One of the CUDA binary utilities, which not every CUDA installation has."""
    places = [shutil.which(name), f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin/{name}"]
    try:
        import triton

        places += [Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / name]
    except ImportError:
        pass
    found = [str(place) for place in places if place and Path(place).exists()]
    if not found:
        pytest.skip(f"no {name} on PATH, in CUDA_HOME or in Triton to compare with")
    return found[0]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_the_reader_agrees_with_the_tools_of_cuda(tmp_path: Path, arch: str) -> None:
    cuobjdump, nvdisasm = tool("cuobjdump"), tool("nvdisasm")
    ours = compiled(tmp_path, "-cubin", f"-arch={arch}")
    cubin = tmp_path / "planted"
    report = subprocess.check_output([cuobjdump, "--dump-resource-usage", cubin], text=True)
    usage = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", report)
    reserved = RESERVED_SHARED_BYTES if arch == "sm_90a" else 0
    assert {(s, int(r), int(b), max(int(m) - reserved, 0)) for s, r, b, m in usage} == {
        (k.symbol, k.registers, k.stack_bytes, k.shared_bytes) for k in ours
    }
    listing = subprocess.check_output([nvdisasm, "-c", cubin], text=True)
    for kernel in ours:
        body = listing.split(f".text.{kernel.symbol}:")[1].split("//-------")[0]
        mnemonics = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9]+)", body)
        known = set(MNEMONICS.values())
        assert kernel.instructions == tuple(m if m in known else "?" for m in mnemonics)
