# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs: in what order things happen, on a stand-in; that they happen, on a GPU."""

from __future__ import annotations

import contextlib

import pytest
import torch

from benchmarks.device import CudaDevice, CudaReplay
from benchmarks.method import capture
from benchmarks.peers import chosen_peers
from benchmarks.rates import measure_rates
from benchmarks.session import Session
from tests.benchmarks.double import MACHINE, make_case
from tests.kernels import cuda_skip_reason


@pytest.fixture
def order(monkeypatch):
    """What is called on torch.cuda, in order."""
    log = []

    class Stream:
        def wait_stream(self, other):
            log.append("wait")

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("synchronize")

        def elapsed_time(self, end):
            return 1.5  # ms

    class Graph:
        def replay(self):
            log.append("replay")

    @contextlib.contextmanager
    def named(name):
        log.append(f"{name} begins")
        yield
        log.append(f"{name} ends")

    fakes = {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "current_stream": Stream,
        "stream": lambda stream: named("side stream"),
        "graph": lambda graph: named("capture"),
        "synchronize": lambda: log.append("all done"),
        "_sleep": lambda cycles: log.append("sleep"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return log


def test_warm_up_then_capture_then_replays_behind_a_lead_in(order):
    def call(number):
        return lambda: order.append(number) or torch.tensor(number)

    replay = CudaReplay([call(0), call(1), call(0), call(1)], keep=2)
    assert order == [
        "wait", "side stream begins", 0, 1, "side stream ends", "wait", "all done",
        "capture begins", 0, 1, 0, 1, "capture ends",
    ]  # fmt: skip
    assert [int(output) for output in replay.outputs] == [0, 1]
    order.clear()
    assert replay.time() == 1500.0
    assert order == ["sleep", "record", "replay", "record", "synchronize"]


@pytest.mark.gpu
@pytest.mark.skipif(cuda_skip_reason() is not None, reason=str(cuda_skip_reason()))
def test_a_replay_takes_as_long_as_its_bytes():
    device = CudaDevice()
    source = torch.randn(1 << 26, device="cuda")  # 256 MB
    timed = capture(device, [lambda a: a + 1], source, us_limit=100.0)
    rate = 2 * source.nbytes / (timed.replay.time() / timed.calls) * 1e6
    assert 0.1e12 < rate < 20e12
    error, right = timed.check(source + 1, torch.float32)
    assert right, error


@pytest.mark.gpu
@pytest.mark.skipif(cuda_skip_reason() is not None, reason=str(cuda_skip_reason()))
def test_a_case_on_the_device():
    device = CudaDevice()
    rates = measure_rates(device, read_bytes=1 << 28, sides=(2048,))
    peers = chosen_peers(["cublas", "pad+slice", "aligned", "batch_invariant"])
    session = Session(device, rates.gpu("here"), MACHINE, peers, 0.05, 1e18)
    (rows,) = session.rows([make_case(k=1000, n=712, k_start=1000, group=128, m=5)])
    assert [(row.peer, row.status, row.peer_status) for row in rows] == [
        (peer.name, "ok", "ok") for peer in peers
    ]
    assert all(0.5 < row.us < 1000 and 0.5 < row.peer_us < 1000 for row in rows)
