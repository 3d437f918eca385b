# SPDX-License-Identifier: Apache-2.0
"""What a peer is to the benchmark."""

from __future__ import annotations

import importlib
import importlib.util

from benchmarks.cases import Case
from benchmarks.method import Operand
from benchmarks.weights import Weight


class Peer:
    """Something that padmarlin is held against. Subclasses say what they take and prepare it."""

    name = ""

    def missing(self) -> str | None:
        """Why this machine cannot run it, or None."""
        return None

    def applies(self, case: Case) -> bool:
        """Whether the comparison means anything: without it there is no row."""
        return True

    def refuses(self, case: Case) -> str | None:
        """Why it cannot compute the case, in its own terms, or None. Such a row has no time."""
        return None

    def case(self, case: Case) -> Case:
        """What it computes: the case itself, but for own peers that leave a property out."""
        return case

    def prepare(self, weight: Weight) -> Operand:
        """An operand that can be copied with copy.deepcopy, its tensors with it."""
        raise NotImplementedError


def missing_module(name: str, how: str) -> str | None:
    """Why a module cannot be imported, or None. `how` says how to bring it."""
    try:
        package = name.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            return f"no package {package}: {how}"
        importlib.import_module(name)
    except Exception as error:  # a broken installation is one that cannot be used
        return f"{name} does not import: {type(error).__name__}: {error}"
    return None


def splits_a_group(case: Case) -> str | None:
    """What all kernels refuse whose K is whole groups."""
    part = case.part
    if part.group == -1:
        return None
    if part.k_start % part.group:
        return f"the part begins {part.k_start % part.group} rows inside a group"
    if part.k % part.group:
        return f"k = {part.k} is not whole groups of {part.group}"
    return None
