# SPDX-License-Identifier: Apache-2.0
"""A line for many layers of which the same is to be said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def grouped(layers: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Of (layer, what there is to say): what is said, of the first, and how many more there are."""
    found: dict[str, list[str]] = {}
    for name, said in layers:
        found.setdefault(said, []).append(name)
    for said, names in found.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{names[0]}{more}: {said}"
