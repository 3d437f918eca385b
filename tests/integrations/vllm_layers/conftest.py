# SPDX-License-Identifier: Apache-2.0
"""Ranks for the tests of this folder, which need vLLM's Python code (`make test-vllm`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.integrations.vllm_layers.ranks import Ranks


@pytest.fixture(scope="session")
def ranks_of() -> Iterator[Callable[[int], Ranks]]:
    """ranks_of(world_size): started when first asked for."""
    started: dict[int, Ranks] = {}

    def of(world_size: int) -> Ranks:
        if world_size not in started:
            started[world_size] = Ranks(world_size)
        return started[world_size]

    yield of
    for ranks in started.values():
        ranks.stop()
