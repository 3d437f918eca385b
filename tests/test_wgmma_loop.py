# SPDX-License-Identifier: Apache-2.0
"""No compiled wgmma kernel touches a register of a running wgmma or serializes them; and the check
would notice."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

import pytest

from padmarlin import _extension
from tests.compile_gates.cubin import kernels
from tests.compile_gates.kernel_names import readable
from tests.compile_gates.wgmma_loop import (
    Loop,
    NoDisassembler,
    find_disassembler,
    loops_of_listing,
    wgmma_loops,
)
from tests.conformance.build import CannotBuild, find_nvcc

ROOT = Path(__file__).resolve().parent.parent
PER_TURN = 8  # four k-slices, two wgmma each


@functools.cache
def built_loops() -> list[Loop]:
    if not _extension.LIBRARY.exists():
        pytest.skip("no padmarlin/_C.so: built without nvcc")
    try:
        return wgmma_loops(_extension.LIBRARY)
    except NoDisassembler as reason:
        pytest.skip(str(reason))


def test_no_kernel_touches_a_running_wgmma() -> None:
    loops = built_loops()
    if not loops:
        pytest.skip("the library was not built for sm_90a")
    wrong = [complaint for loop in loops for complaint in loop.complaints]
    assert not wrong, "\n".join(wrong)
    assert {loop.wgmmas for loop in loops} == {PER_TURN}
    # Two dtypes; five kinds of dequantization at 4 bits, three at 8; eight numbers of rows.
    assert len(loops) == 2 * (5 + 3) * 8


def test_no_kernel_serializes_wgmma() -> None:
    """Without a disassembler: serialized wgmma wait one by one, each between an ARRIVE and a
    DEPBAR. Else there are four of each for a turn's eight wgmma, and the last wait."""
    if not _extension.LIBRARY.exists():
        pytest.skip("no padmarlin/_C.so: built without nvcc")
    found = [k for k in kernels(_extension.LIBRARY) if "wgmma_kernel" in k.symbol]
    if not found:
        pytest.skip("the library was not built for sm_90a")
    for kernel in found:
        counts = tuple(kernel.instructions.count(name) for name in ("HGMMA", "WARPGROUP"))
        assert counts == (PER_TURN, 9), readable(kernel.symbol)


SYMBOL = (
    "_ZN9padmarlin5wgmma12wgmma_kernelILNS_5DtypeE0ELi4ELNS_7DequantE0ELb0ELi64EEEv"
    "NS0_9ArgumentsE14CUtensorMap_st"
)
LISTING = """
	.target	sm_90a
	.section	.text.{symbol},"ax",@progbits
.L_x_1:
        /*0010*/                   {before} ;
        /*0020*/                   WARPGROUP.ARRIVE ;
        /*0030*/                   HGMMA.64x64x16.F32 R24, R100, gdesc[UR4], R24, UP0 ;
        /*0040*/                   HGMMA.64x64x16.F32 R56, R104, gdesc[UR4], R56, gsb0 ;
        /*0050*/                   {between} ;
        /*0060*/                   WARPGROUP.DEPBAR.LE gsb0, 0x{left} ;
        /*0070*/              @!P0 BRA `(.L_x_1) ;
"""


@pytest.mark.parametrize(
    ("before", "between", "left", "expected"),
    [
        ("HFMA2 R108, R1, R2, R3", "LOP3.LUT R90, R1, R2, RZ, 0xc0, !PT", 1, None),
        ("HFMA2 R101, R1, R2, R3", "NOP", 1, "0010 HFMA2 R101, R1, R2, R3: writes operand A"),
        ("NOP", "LDS.64 R106, [R1]", 1, "0050 LDS.64 R106, [R1]: writes operand A"),
        ("LDS.128 R97, [R1]", "NOP", 1, "writes operand A of a running wgmma"),
        ("NOP", "FADD R1, R1, R25", 1, "touches the sums of a running wgmma"),
        ("MOV R87, R1", "NOP", 1, "touches the sums of a running wgmma"),
        ("STS [R1], R30", "NOP", 1, "touches the sums of a running wgmma"),
        ("NOP", "NOP", 0, "waits for all wgmma: serialized"),
    ],
)  # fmt: skip
def test_a_touched_register_is_found(
    before: str, between: str, left: int, expected: str | None
) -> None:
    listing = LISTING.format(symbol=SYMBOL, before=before, between=between, left=left)
    (loop,) = loops_of_listing(listing)
    assert loop.name == "wgmma_kernel half bits=4 two_field asymmetric=0 rows=64"
    assert (loop.arch, loop.wgmmas) == ("sm_90a", 2)
    if expected is None:
        assert loop.complaints == ()
    else:
        assert expected in loop.complaints[0], loop.complaints


PLANTED = """
#include "cuda/wgmma/kernel.cuh"
template __global__ void padmarlin::wgmma::wgmma_kernel<
    padmarlin::Dtype::kHalf, 4, padmarlin::Dequant::kTwoField, false, 128>(
    const __grid_constant__ padmarlin::GemmArguments,
    const __grid_constant__ padmarlin::GemmChoice,
    const __grid_constant__ padmarlin::ptx::TensorMap);
"""

BUGS = {
    # The prototype's find: ptxas reuses registers of a wgmma that runs, without a word.
    "wait_too_weak": (
        "wgmma_wait_group<kSets - 1>", "wgmma_wait_group<kSets>", "writes operand A",
    ),
    "wait_under_a_condition": (
        "ptx::wgmma_wait_group<kSets - 1>();",
        "if (turn % 2 == 0) ptx::wgmma_wait_group<kSets - 1>();", "under a condition",
    ),
    "syncwarp_under_a_condition": (
        "if (slice == kSets - 2) {", "if (slice == kSets - 2 && used_before >= 0) {", "serialized",
    ),
    "sums_touched_amid": (
        "      ptx::wgmma_commit_group();\n",
        "      ptx::wgmma_commit_group();\n      acc[0][0] += 1.0f;\n", "running wgmma|serialized",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", ["none", *BUGS])
def test_planted_bugs_show_in_machine_code(tmp_path: Path, bug: str) -> None:
    try:
        nvcc, _ = find_nvcc(), find_disassembler()
    except (CannotBuild, NoDisassembler) as reason:
        pytest.skip(str(reason))
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    if bug != "none":
        consumer = tmp_path / "csrc" / "cuda" / "wgmma" / "consumer.cuh"
        original, replacement, _ = BUGS[bug]
        text = consumer.read_text()
        assert text.count(original) == 1, original
        consumer.write_text(text.replace(original, replacement))
    (tmp_path / "planted.cu").write_text(PLANTED)
    subprocess.run(
        [
            nvcc, "-std=c++20", "-O3", "--expt-relaxed-constexpr", "-cubin",
            "-gencode=arch=compute_90a,code=sm_90a", "-Icsrc", "-Icsrc/cuda",
            "planted.cu", "-o", "planted.cubin",
        ],
        check=True, cwd=tmp_path, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    (loop,) = wgmma_loops(tmp_path / "planted.cubin")
    if bug == "none":
        assert loop.complaints == ()
    else:
        expected = BUGS[bug][2].split("|")
        assert any(part in c for part in expected for c in loop.complaints), loop.complaints
