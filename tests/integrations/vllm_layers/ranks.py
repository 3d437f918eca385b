# SPDX-License-Identifier: Apache-2.0
"""Tensor-parallel ranks: processes joined by gloo that keep running and do what tests ask of them.

vLLM takes seconds to import, so the processes are started once per world size.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.multiprocessing as mp

_START_S, _ANSWER_S = 300, 120


class Ranks:
    """`world_size` processes with vLLM's groups set up and padmarlin registered, if it is asked."""

    def __init__(self, world_size: int) -> None:
        context = mp.get_context("spawn")
        port = _free_port()
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(world_size):
            mine, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, world_size, port, theirs), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)
        self._answers(_START_S)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """function(*arguments) on every rank; what they return, or the first error as it is."""
        for pipe in self.pipes:
            pipe.send((function, arguments))
        return self._answers(_ANSWER_S)

    def stop(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()

    def _answers(self, seconds: float) -> list[Any]:
        answers = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(seconds):
                raise TimeoutError(f"rank {rank} has not answered for {seconds} s")
            answers.append(pipe.recv())
        for rank, (failed, value) in enumerate(answers):
            if failed:
                raise RankError(f"rank {rank}: {value}")
        return [value for _, value in answers]


class RankError(Exception):
    """What was raised on a rank, with its traceback as text."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _serve(rank: int, world_size: int, port: int, pipe: Connection) -> None:
    try:
        _join(rank, world_size, port)
        pipe.send((False, None))
    except BaseException:
        pipe.send((True, traceback.format_exc()))
        return
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((False, function(*arguments)))
        except Exception:
            pipe.send((True, traceback.format_exc()))


def _join(rank: int, world_size: int, port: int) -> None:
    os.environ.update(
        VLLM_LOGGING_LEVEL="WARNING",
        VLLM_TARGET_DEVICE="cpu",
        VLLM_DIST_IDENT=f"padmarlin{port}",
        HF_HUB_OFFLINE="1",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel

    from padmarlin.integrations.vllm import register

    register()
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(world_size, rank, f"tcp://127.0.0.1:{port}", rank, "gloo")
        initialize_model_parallel(world_size)
