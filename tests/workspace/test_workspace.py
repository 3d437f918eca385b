# SPDX-License-Identifier: Apache-2.0
"""Who gets which counters (csrc/torch/workspace.cpp), on a made-up CUDA runtime: eager streams,
captures, graphs that end, threads. tests/test_cuda.py has the real replays.
"""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.conformance.build import CannotBuild, find_nvcc

ROOT = Path(__file__).resolve().parents[2]
SMS = 132
COUNT = 4 * SMS  # max_counters
CHUNK = 64


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        nvcc = find_nvcc()  # for the CUDA headers; it hands .cpp to the host compiler
    except CannotBuild as reason:
        pytest.skip(str(reason))
    library = tmp_path_factory.mktemp("workspace") / "workspace.so"
    sources = [ROOT / "csrc/torch/workspace.cpp", ROOT / "tests/workspace/fake_cuda.cpp"]
    includes = [ROOT / "csrc", Path(torch.__file__).parent / "include"]
    subprocess.run([
        nvcc, "-std=c++20", "-O1", "-shared", "-Xcompiler=-fPIC,-w", "-cudart=none",
        *(f"-I{folder}" for folder in includes), *map(str, sources), "-o", str(library),
    ], check=True)  # fmt: skip
    return library


class Fake:
    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.fake_counters.restype = ctypes.c_uint64
        self._library.fake_violation.restype = ctypes.c_char_p

    def counters(self, stream: int, device: int = 0, count: int = COUNT) -> int:
        return self._library.fake_counters(device, ctypes.c_uint64(stream), SMS, count)

    def begin(self, stream: int, capture: int) -> None:
        self._library.fake_begin_capture(ctypes.c_uint64(stream), ctypes.c_uint64(capture))

    def end(self, stream: int) -> None:
        self._library.fake_end_capture(ctypes.c_uint64(stream))

    def destroy(self, capture: int) -> None:
        self._library.fake_destroy_graph(ctypes.c_uint64(capture))

    def retain_fails(self, fails: bool) -> None:
        self._library.fake_retain_fails(fails)

    @property
    def allocations(self) -> int:
        return self._library.fake_allocations()

    @property
    def violation(self) -> str | None:
        return (self._library.fake_violation() or b"").decode() or None


@pytest.fixture
def fake(compiled: Path, tmp_path: Path):
    """A machine of its own: a copy of the library has its own state."""
    library = tmp_path / "workspace.so"
    shutil.copy(compiled, library)
    made = Fake(library)
    yield made
    assert made.violation is None


def disjoint(addresses: list[int]) -> bool:
    ordered = sorted(addresses)
    return all(b - a >= 4 * COUNT for a, b in itertools.pairwise(ordered))


def test_a_stream_keeps_its_counters_and_shares_them_with_no_other(fake):
    first = [fake.counters(stream) for stream in range(1, 40)]
    assert disjoint(first)
    assert [fake.counters(stream) for stream in range(1, 40)] == first
    assert fake.allocations == 1


def test_devices_have_counters_of_their_own(fake):
    assert disjoint([fake.counters(1, device) for device in range(3)])
    assert fake.allocations == 3


def test_each_capture_of_a_stream_has_its_own(fake):
    """Two graphs captured on one stream may replay at once on two."""
    seen = [fake.counters(1)]
    for capture in (11, 12):
        fake.begin(1, capture)
        seen += {fake.counters(1) for _ in range(3)}
        fake.end(1)
    assert len(seen) == 3
    assert disjoint(seen)
    assert fake.counters(1) == seen[0]


def test_streams_joined_to_one_capture_do_not_share(fake):
    for stream in (1, 2):
        fake.begin(stream, 11)
    assert disjoint([fake.counters(1), fake.counters(2)])


def test_the_first_call_ever_may_be_captured(fake):
    fake.begin(1, 11)
    assert fake.counters(1)
    assert fake.allocations == 1


def test_counters_come_back_when_the_graph_is_gone(fake):
    """A thousand graphs one after another take one allocation; live ones share nothing."""
    for capture in range(1, 1000):
        fake.begin(1, capture)
        assert fake.counters(1)
        fake.end(1)
        fake.destroy(capture)
    assert fake.allocations == 1


def test_live_graphs_hold_their_counters(fake):
    live = []
    for capture in range(1, 201):
        fake.begin(1, capture)
        live.append(fake.counters(1))
        fake.end(1)
    assert disjoint(live)
    assert fake.allocations == -(-200 // CHUNK)


def test_a_capture_that_cannot_hold_its_counters_is_refused_and_gives_them_back(fake):
    fake.retain_fails(True)
    for capture in range(1, 200):
        fake.begin(1, capture)
        assert fake.counters(1) == 0
        fake.end(1)
    assert fake.allocations == 1


def test_more_counters_than_a_choice_can_need_are_refused(fake):
    assert fake.counters(1, count=COUNT + 1) == 0


def test_threads(fake):
    """Eager calls and captures of eight threads at once, over and over."""

    def work(thread: int) -> dict[tuple, int]:
        mine = {}
        for turn in range(100):
            stream, capture = thread * 100 + turn % 7 + 1, thread * 1000 + turn + 1
            mine[0, stream] = fake.counters(stream)
            fake.begin(stream, capture)
            mine[capture, stream] = fake.counters(stream)
            fake.end(stream)
        return mine

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    held = [address for mine in results for address in mine.values()]
    assert all(held)
    assert disjoint(held)
