# SPDX-License-Identifier: Apache-2.0
"""Which layers of a model were taken and which were not, told in few lines."""

from __future__ import annotations

import re

from padmarlin.integrations.vllm.log import logger
from padmarlin.models.layers import number_ranges

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class Journal:
    """Of one model on one rank. Says its line once, when all layers are known."""

    def __init__(self) -> None:
        self.taken: dict[str, list[str]] = {}  # reason -> layers
        self.left: list[str] = []
        self.reported = False

    def take(self, name: str, reason: str) -> None:
        self.taken.setdefault(reason, []).append(name)

    def leave(self, name: str) -> None:
        self.left.append(name)

    def lines(self, tp: int) -> list[str]:
        """A line per reason, the same for all layers that differ in their number only."""
        total = sum(map(len, self.taken.values())) + len(self.left)
        if not self.taken:
            nothing = f"no layer that vLLM refuses or gets wrong at TP={tp}"
            return [f"padmarlin: leaves all {total} quantized linear layers to vLLM: {nothing}"]
        return [
            f"padmarlin: takes {len(names)} of {total} quantized linear layers at TP={tp}: "
            f"{', '.join(patterns(names))}: {reason}"
            for reason, names in self.taken.items()
        ]

    def report(self, rank: int, tp: int) -> None:
        if self.reported:
            return
        self.reported = True
        if rank == 0:
            for line in self.lines(tp):
                logger.info(line)


def patterns(names: list[str]) -> list[str]:
    """Names that differ in one number only, in one: "model.layers.{0..79}.mlp.down_proj"."""
    numbers: dict[str, list[int]] = {}
    for name in names:
        found = _NUMBER.search(name)
        if found is None:
            numbers[name] = []
            continue
        pattern = f"{name[: found.start()]}\0{name[found.end() :]}"
        numbers.setdefault(pattern, []).append(int(found[0]))
    return [pattern.replace("\0", number_ranges(own)) for pattern, own in numbers.items()]
