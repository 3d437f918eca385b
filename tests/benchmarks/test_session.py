# SPDX-License-Identifier: Apache-2.0
"""Whole runs on the scripted device: real products on the CPU, times that the test chose."""

from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks.peers import PEERS, chosen_peers
from benchmarks.peers.base import Peer
from benchmarks.peers.own import Gemm, Padmarlin
from benchmarks.peers.torch_ops import Cublas, Dense
from benchmarks.session import BrokenDevice, Session
from tests.benchmarks.double import GPU, MACHINE, ScriptedDevice, make_case

OWN_PEERS = ["cublas", "pad+slice", "aligned", "in-order", "symmetric", "fp16", "batch_invariant"]


def run(cases, peers, deadline=1e9, device=None, clock=lambda: 0.0):
    session = Session(device or ScriptedDevice(), GPU, MACHINE, peers, 0.0, deadline, clock)
    return list(session.rows(cases))


def by_peer(rows):
    return {row.peer: row for row in rows}


def test_a_ragged_case_against_everything_that_runs_here():
    case = make_case(k=200, n=50, k_start=200, group=128)
    (rows,) = run([case], chosen_peers(OWN_PEERS))
    found = by_peer(rows)
    # No act-order, no zeros, fp16 already: those twins would be the case itself.
    assert list(found) == ["cublas", "pad+slice", "aligned", "batch_invariant"]
    for peer, row in found.items():
        assert (row.status, row.peer_status) == ("ok", "ok"), peer
        assert 0 < row.error < 1e-3 and 0 < row.peer_error < 1e-3
    assert [row.us for row in rows] == [10.0] * 4
    assert [row.peer_us for row in rows] == [11.0, 12.0, 13.0, 14.0]
    assert found["pad+slice"].ratio == pytest.approx(1.2)
    assert rows[0].us_limit == pytest.approx(case.bytes / 1e12 * 1e6)


def test_every_twin_leaves_out_its_own_property():
    case = make_case(k=192, act_order=True, symmetric=False, dtype="bfloat16")
    (rows,) = run([case], chosen_peers(OWN_PEERS))
    found = by_peer(rows)
    assert set(found) == {"cublas", "in-order", "symmetric", "fp16", "batch_invariant"}
    assert all(row.peer_status == "ok" for row in rows), [row.peer_status for row in rows]


def test_all_m_of_a_part_share_its_weights_and_keep_their_order():
    cases = [make_case(m=m) for m in (1, 5, 16)] + [make_case(m=2, bits=8)]
    device = ScriptedDevice()
    groups = run(cases, [Cublas()], device=device)
    assert [rows[0].m for rows in groups] == [1, 5, 16, 2]
    assert [rows[0].bits for rows in groups] == [4, 4, 4, 8]
    assert device.captured == 8


class Broken(Peer):
    name = "broken"

    def prepare(self, weight):
        raise RuntimeError("no\n such   kernel")


class Wrong(Peer):
    name = "wrong"

    def prepare(self, weight):
        return Dense(weight.dense() * 1.01)


class Crashes(Cublas):
    name = "crashes"

    def prepare(self, weight):
        return lambda a: a @ torch.zeros(1, 1)


class Refuses(Cublas):
    name = "refuses"

    def refuses(self, case):
        return "odd shapes"


def test_a_peer_that_fails_is_reported_and_stops_nothing():
    (rows,) = run([make_case()], [Broken(), Wrong(), Crashes(), Refuses(), Cublas()])
    found = by_peer(rows)
    assert found["broken"].peer_status == "fails: RuntimeError: no such kernel"
    assert found["wrong"].peer_status.startswith("wrong: |error| 1.0e-02")
    assert found["crashes"].peer_status.startswith("fails: RuntimeError: ")
    assert found["refuses"].peer_status == "refuses: odd shapes"
    for name in ("broken", "wrong", "crashes", "refuses"):
        assert found[name].peer_us is None and found[name].ratio is None
    assert found["cublas"].peer_status == "ok" and found["cublas"].ratio > 1


def test_a_wrong_result_of_padmarlin_has_no_time_and_no_ratio(monkeypatch):
    def wrong(self, a):
        return torch.ones(a.shape[0], self.weight.n, dtype=a.dtype)

    monkeypatch.setattr(Gemm, "__call__", wrong)
    (rows,) = run([make_case()], [Cublas()])
    (row,) = rows
    assert row.status.startswith("wrong: ")
    assert row.us is None and row.fraction_of_limit is None and row.ratio is None


def test_padmarlin_that_fails_has_no_time(monkeypatch):
    def fails(self, weight):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Padmarlin, "prepare", fails)
    (rows,) = run([make_case()], [Cublas()])
    assert rows[0].status == "fails: RuntimeError: out of memory"
    assert rows[0].us is None and rows[0].ratio is None


def test_a_broken_device_ends_the_run_and_keeps_what_came_before():
    device = ScriptedDevice()

    class Breaks(Cublas):
        name = "breaks"

        def prepare(self, weight):
            device.broken = weight.case.part.n == 32
            return Dense(weight.dense()[1:] if device.broken else weight.dense())

    session = Session(device, GPU, MACHINE, [Breaks()], 0.0, 1e9, lambda: 0.0)
    rows = session.rows([make_case(), make_case(n=32)])
    assert next(rows)[0].peer_status == "ok"
    with pytest.raises(BrokenDevice, match="breaks broke the device: RuntimeError: .*--peers"):
        next(rows)


def test_without_peers_there_is_still_a_row():
    ((row,),) = run([make_case()], [])
    assert row.peer is None and row.us == 10.0


def test_a_run_stops_when_its_time_is_used_up():
    ticks = itertools.count()
    cases = [make_case(m=m) for m in range(1, 50)]
    groups = run(cases, [], deadline=40, clock=lambda: next(ticks))
    assert 1 <= len(groups) < 49
    assert run(cases, [], deadline=0) == []


def test_names_of_peers():
    assert chosen_peers(["all"]) == list(PEERS)
    assert chosen_peers(["none"]) == []
    assert [peer.name for peer in chosen_peers(["humming", "cublas"])] == ["humming", "cublas"]
    with pytest.raises(ValueError, match="--peers: got 'marlin', expected some of cublas"):
        chosen_peers(["marlin"])
    assert len({peer.name for peer in PEERS}) == len(PEERS)
