# SPDX-License-Identifier: Apache-2.0
"""csrc/core/instruction_counts.h says what the machine code has."""

from __future__ import annotations

import pytest

from padmarlin import _extension
from padmarlin.layout import Dequant
from tests.compile_gates.budget import read_budget
from tests.compile_gates.wgmma_loop import NoDisassembler, wgmma_loops
from tests.kernels import emulator

COUNTS = {
    (bits, Dequant(dequant), asymmetric): (mma_extra, wgmma_turn)
    for bits, dequant, asymmetric, mma_extra, wgmma_turn in emulator().instruction_counts
}
REFERENCE = (4, Dequant.TWO_FIELD, False)  # what mma_extra counts from
WEIGHTS_PER_LANE = 64 * 64 // 32  # of a tile


def kind_name(kind: tuple[int, Dequant, bool]) -> str:
    """As tests/compile_gates names kernels."""
    bits, dequant, asymmetric = kind
    return f"bits={bits} {dequant.name.lower()} asymmetric={int(asymmetric)}"


@pytest.mark.parametrize("kind", COUNTS, ids=kind_name)
@pytest.mark.parametrize("m_steps", [1, 2, 4, 8])
def test_the_mma_kernel_issues_what_its_budget_has(kind, m_steps):
    """Beyond arithmetic: at most 18 loads and copies, of zeros and of the second plane."""
    limits = read_budget().limits

    def per_8_weights(of):
        return limits[f"gemm_kernel half {kind_name(of)} m_steps={m_steps}", "sm_90a"].instructions

    more = (per_8_weights(kind) - per_8_weights(REFERENCE)) * WEIGHTS_PER_LANE / 8
    assert -2 <= COUNTS[kind][0] - more <= 18, (COUNTS[kind][0], more)


def test_the_wgmma_kernel_issues_what_its_loops_have():
    if not _extension.LIBRARY.exists():
        pytest.skip("no padmarlin/_C.so: built without nvcc")
    try:
        loops = wgmma_loops(_extension.LIBRARY)
    except NoDisassembler as reason:
        pytest.skip(str(reason))
    if not loops:
        pytest.skip("the library was not built for sm_90a")
    for kind, (_, expected) in COUNTS.items():
        found = [loop.instructions for loop in loops if kind_name(kind) in loop.name]
        assert len(found) == 2 * len(emulator().wgmma_block_rows), kind
        for instructions in found:
            assert instructions == pytest.approx(expected, rel=0.04), kind
