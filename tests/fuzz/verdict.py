# SPDX-License-Identifier: Apache-2.0
"""What counts as a refusal, and limits of memory and time."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Answer = TypeVar("Answer")

_REFUSAL = re.compile(r"[\w.]+: .+: got .+, expected .+", re.DOTALL)  # padmarlin.errors.refusal

MEMORY_BYTES = 2 << 30
"""What a case may add to the address space; the largest valid case takes a hundredth of it."""


def answer_or_refusal(call: Callable[[], Answer]) -> Answer | None:
    """What `call` returns, None if it refuses; any other exception, or other words, fail."""
    try:
        return call()
    except (ValueError, TypeError, RuntimeError) as error:
        # By exact type: UnicodeDecodeError is a ValueError, RecursionError a RuntimeError.
        in_form = _REFUSAL.match(str(error)) is not None
        if in_form and type(error) in (ValueError, TypeError, RuntimeError):
            return None
        raise


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Allocations beyond MEMORY_BYTES fail within it, instead of taking the machine down."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
