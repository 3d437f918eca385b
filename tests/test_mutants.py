# SPDX-License-Identifier: Apache-2.0
"""The table of planted bugs fits the sources. `make test-mutants` plants them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from tests.mutants.run import TableError, mutated
from tests.mutants.table import MUTANTS
from tests.standalone.build import CSRC, HERE

NAMES = set(re.findall(r'^ +\{"(\w+)"', (HERE / "checks.cpp").read_text(), re.MULTILINE))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_fits_its_file(mutant):
    assert mutated(mutant) != (CSRC / mutant.file).read_text(), "nothing is changed"
    assert mutant.test in NAMES, f"tests/standalone/checks.cpp has no test {mutant.test}"


def test_names_are_unique():
    assert [name for name, count in Counter(m.name for m in MUTANTS).items() if count > 1] == []


def test_every_kernel_header_has_planted_bugs():
    headers = {f"cuda/{path.name}" for path in (CSRC / "cuda").glob("*.cuh")}
    headers -= {"cuda/gemm_launch.cuh"}  # the host side
    assert headers <= {mutant.file for mutant in MUTANTS}


def test_a_bug_whose_text_is_gone_is_an_error():
    gone = replace(MUTANTS[0], original="no such text")
    with pytest.raises(
        TableError, match="occurs 0 times in csrc/cuda/gemm_kernel.cuh, expected once"
    ):
        mutated(gone)
    twice = replace(MUTANTS[0], original="#include")
    with pytest.raises(TableError, match="expected once"):
        mutated(twice)
