# SPDX-License-Identifier: Apache-2.0
"""N processes with one process group, and what becomes of them: a result, or one clear error.

The processes are forked, so that they have what the caller has and start at once; where the caller
has used CUDA already, which a fork cannot, they are spawned. No process outlives the call: the
caller ends them, and if the caller itself is killed, the kernel does.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from padmarlin._extension import extension_status
from padmarlin.errors import refusal
from padmarlin.verify.rank import LayerTask, Subject, check_layer
from padmarlin.verify.report import LayerResult

_GRACE_S = 1.0
"""How long after a first failure others are listened to: the one that crashed says nothing, its
neighbours complain of a lost connection at once."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class RanksFailed(RuntimeError):
    """The ranks came to no result."""


@dataclass(frozen=True)
class Group:
    """How the ranks run."""

    world_size: int
    backend: str  # "gloo" or "nccl"
    timeout_s: float

    def device(self, rank: int) -> torch.device:
        return torch.device("cuda", rank) if self.backend == "nccl" else torch.device("cpu")


def choose_backend(world_size: int) -> str:
    """nccl if every rank has a GPU of its own and there are kernels for it."""
    if not dist.is_available():
        got, expected = "a torch without torch.distributed", "one that has it"
        raise RanksFailed(refusal("verify", "torch", got, expected))
    enough = torch.cuda.device_count() >= world_size and extension_status().available
    return "nccl" if enough and dist.is_nccl_available() else "gloo"


def run_ranks(group: Group, tasks: Sequence[LayerTask], subject: Subject) -> Iterator[LayerResult]:
    """Yields each layer's result as rank 0 has it; raises ValueError for what a rank refuses, and
    RanksFailed for a crash or a hang."""
    context: Any = multiprocessing.get_context("spawn" if torch.cuda.is_initialized() else "fork")
    with tempfile.TemporaryDirectory(prefix="padmarlin-verify-") as scratch:
        processes, connections = [], []
        try:
            for rank in range(group.world_size):
                ours, theirs = context.Pipe(duplex=False)
                arguments = (rank, group, list(tasks), subject, theirs, scratch, os.getpid())
                process = context.Process(target=_main, args=arguments, daemon=True)
                process.start()
                theirs.close()
                processes.append(process)
                connections.append(ours)
            yield from _results(group, processes, connections, Path(scratch))
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join()
            for connection in connections:
                connection.close()


def _results(
    group: Group, processes: list[Any], connections: list[Connection], scratch: Path
) -> Iterator[LayerResult]:
    at = ["start"] * group.world_size  # the layer that each rank is at
    open_connections = dict(zip(connections, range(group.world_size), strict=True))
    deadline = time.monotonic() + group.timeout_s
    while open_connections:
        left = deadline - time.monotonic()
        ready = wait(list(open_connections), max(left, 0))
        if not ready:
            places = ", ".join(sorted(set(at)))
            got = f"no sign of life for {group.timeout_s:g} s, at {places}"
            remedy = "pass a longer timeout if the machine is slow"
            raise RanksFailed(refusal("verify", "ranks", got, "a result", remedy))
        for connection in ready:
            assert isinstance(connection, Connection)
            rank = open_connections[connection]
            try:
                kind, value = connection.recv()
            except EOFError:
                del open_connections[connection]
                processes[rank].join(_GRACE_S)
                raise _failure(processes, connections, at, scratch, {rank: ("died", "")}) from None
            if kind == "failed":
                raise _failure(processes, connections, at, scratch, {rank: value})
            deadline = time.monotonic() + group.timeout_s
            if kind == "at":
                at[rank] = value
            elif kind == "result":
                yield value
            else:
                del open_connections[connection]


def _failure(
    processes: list[Any],
    connections: list[Connection],
    at: list[str],
    scratch: Path,
    found: dict[int, tuple[str, str]],
) -> Exception:
    """The error that explains the others: a refusal, else a death, else whatever came first."""
    until = time.monotonic() + _GRACE_S
    others = {connection: rank for rank, connection in enumerate(connections) if rank not in found}
    while others and time.monotonic() < until:
        for connection in wait(list(others), max(until - time.monotonic(), 0)):
            assert isinstance(connection, Connection)
            rank = others[connection]
            try:
                kind, value = connection.recv()
            except (EOFError, OSError):
                del others[connection]
                processes[rank].join(_GRACE_S)
                if processes[rank].exitcode != 0:
                    found.setdefault(rank, ("died", ""))
                continue
            if kind == "failed":
                found[rank] = value
    for kind, message in found.values():
        if kind == "refused":
            return ValueError(message)
    for rank, (kind, _) in found.items():
        if kind == "died":
            how = _death(processes[rank].exitcode)
            last = _last_line(scratch / f"rank{rank}.log")
            got = f"rank {rank} {how} at {at[rank]}{last}"
            remedy = "a rank that is killed has often run out of memory"
            return RanksFailed(refusal("verify", "ranks", got, "a result", remedy))
    rank, (_, message) = next(iter(found.items()))
    got = f"{message} in rank {rank} at {at[rank]}"
    return RanksFailed(refusal("verify", "ranks", got, "a result"))


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip() and "[Gloo]" not in line]
        return f" ({said[-1][:200]})" if said else ""
    return ""


def _main(
    rank: int,
    group: Group,
    tasks: list[LayerTask],
    subject: Subject,
    connection: Connection,
    scratch: str,
    parent: int,
) -> None:
    """A rank's life."""
    _end_with(parent)
    _write_to(Path(scratch) / f"rank{rank}.log")
    # Threads of OpenMP do not survive a fork; a child that asks for them may wait for ever.
    torch.set_num_threads(1)
    try:
        _join_group(rank, group, Path(scratch))
        device = group.device(rank)
        for task in tasks:
            connection.send(("at", task.name))
            result = check_layer(task, subject, rank, group.world_size, device)
            if result is not None:
                connection.send(("result", result))
        dist.barrier()
        connection.send(("done", None))
        dist.destroy_process_group()
    except (ValueError, TypeError) as error:
        connection.send(("failed", ("refused", _one_line(error))))
    except Exception as error:
        connection.send(("failed", ("failed", f"{type(error).__name__}: {_one_line(error)}")))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _join_group(rank: int, group: Group, scratch: Path) -> None:
    # All ranks are on this machine: gloo need not find out under which name others see it.
    if "lo" in (name for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = group.backend
    if backend == "nccl":
        torch.cuda.set_device(rank)
        backend = "cpu:gloo,cuda:nccl"
    # The caller's own limit is the one that ends a hang; this one only must not come before it.
    limit = datetime.timedelta(seconds=2 * group.timeout_s + 60)
    store = dist.FileStore(  # type: ignore[attr-defined]
        str(scratch / "store"), group.world_size
    )
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=group.world_size, timeout=limit
    )


def _end_with(parent: int) -> None:
    """This process ends when its parent does, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was quicker
            os._exit(1)


def _write_to(log: Path) -> None:
    """Libraries print as they like; the caller's output is for the result alone."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
