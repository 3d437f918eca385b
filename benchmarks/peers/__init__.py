# SPDX-License-Identifier: Apache-2.0
"""All peers, by name. Each is used where it can be imported, and skipped with the reason if not."""

from __future__ import annotations

from benchmarks.peers.base import Peer
from benchmarks.peers.gemlite import Gemlite
from benchmarks.peers.gptqmodel import GptqModelMarlin
from benchmarks.peers.humming import Humming
from benchmarks.peers.own import TWINS, BatchInvariant, Padded, Padmarlin
from benchmarks.peers.torch_ops import Cublas, Int4Pack
from benchmarks.peers.vllm import Machete, VllmMarlin

OWN = Padmarlin()
PEERS: tuple[Peer, ...] = (
    Cublas(),
    Padded(),
    *TWINS,
    BatchInvariant(),
    Int4Pack(),
    Humming(),
    VllmMarlin(),
    Machete(),
    Gemlite(),
    GptqModelMarlin(),
)


def chosen_peers(names: list[str]) -> list[Peer]:
    """The peers named; "all" is every one of them, "none" none."""
    by_name = {peer.name: peer for peer in PEERS}
    if names == ["all"]:
        return list(PEERS)
    if names == ["none"]:
        return []
    for name in names:
        if name not in by_name:
            expected = ", ".join([*by_name, "all", "none"])
            raise ValueError(f"--peers: got {name!r}, expected some of {expected}")
    return [by_name[name] for name in names]
