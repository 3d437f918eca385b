# SPDX-License-Identifier: Apache-2.0
"""Runs a function on several ranks: processes that share a gloo group."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT_S = 120

# Forked from a server that has imported torch already, and started no thread.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["padmarlin", "torch.distributed"])


def on_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``function(rank, *arguments)`` returns on each of `size` ranks of the default group."""
    with tempfile.TemporaryDirectory(prefix="padmarlin-ranks-") as folder:
        ranks = []
        for rank in range(size):
            receiver, sender = _CONTEXT.Pipe(duplex=False)
            target = (sender, Path(folder) / "store", rank, size, function, arguments)
            process = _CONTEXT.Process(target=_work, args=target, daemon=True)
            process.start()
            sender.close()
            ranks.append((process, receiver))
        try:
            return [_answer(rank, *entry) for rank, entry in enumerate(ranks)]
        finally:
            for process, _ in ranks:
                process.kill()
                process.join()


def _answer(rank: int, process: Any, receiver: Connection) -> Any:
    assert wait([receiver], TIMEOUT_S), f"rank {rank} gave no answer within {TIMEOUT_S} s"
    try:
        failure, result = pickle.loads(receiver.recv_bytes())
    except EOFError:
        process.join()
        raise AssertionError(f"rank {rank} ended with exit code {process.exitcode}") from None
    assert not failure, f"rank {rank}: {failure}"
    return result


def _work(
    sender: Connection,
    store: Path,
    rank: int,
    size: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    failure, result = "", None
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        result = function(rank, *arguments)
        dist.barrier()
    except BaseException:
        failure = traceback.format_exc()
    # By value: what torch would share of a tensor dies with this process.
    sender.send_bytes(pickle.dumps((failure, result)))
    if not failure:
        dist.destroy_process_group()
