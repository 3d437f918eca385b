# SPDX-License-Identifier: Apache-2.0
"""Asks an engine for log-probabilities, with and without the plugin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[3]
_LIMIT_S = 420


class EngineError(Exception):
    """The end of what an engine said before it gave up."""


@dataclass(frozen=True)
class Answer:
    logprobs: np.ndarray  # (prompts, positions, vocabulary)
    tokens: np.ndarray
    lines: list[str]  # what the plugin logged


def ask(
    folder: Path,
    checkpoint: Path,
    prompts: np.ndarray,
    vocabulary: int,
    tp: int,
    mode: str,
    *,
    adapter: Path | None = None,
    reload: Path | None = None,
    **options: Any,
) -> Answer:
    """`mode` is the value of PADMARLIN_VLLM, `options` are vllm.LLM's; a LoRA adapter to ask with,
    a checkpoint from which the weights are reloaded first."""
    request, answer = folder / "request.json", folder / "answer.npz"
    values = {
        "checkpoint": str(checkpoint),
        "prompts": prompts.tolist(),
        "vocabulary": vocabulary,
        "tp": tp,
        "options": options,
        "adapter": None if adapter is None else str(adapter),
        "reload": None if reload is None else str(reload),
        "answer": str(answer),
    }
    request.write_text(json.dumps(values))
    ranks = tp * options.get("pipeline_parallel_size", 1)
    environment = {
        **os.environ,
        "PADMARLIN_VLLM": mode,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CACHE_ROOT": str(folder / "cache"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # One core for each rank; without it vLLM looks for NUMA nodes, and asserts.
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(str(rank % os.cpu_count()) for rank in range(ranks)),
    }
    command = [sys.executable, "-m", "tests.integrations.vllm_engine.run", str(request)]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
        )
        try:
            process.wait(_LIMIT_S)
        finally:
            _end_group(process)
    text = (folder / "log.txt").read_text()
    if process.returncode or not answer.exists():
        # pydantic says "Value error, ..." in a line of its own.
        errors = [line for line in text.splitlines() if "rror" in line]
        raise EngineError("\n".join(errors) or text[-2000:])
    lines = [
        line.partition("padmarlin: ")[2] for line in text.splitlines() if "] padmarlin: " in line
    ]
    with np.load(answer) as found:
        return Answer(found["logprobs"], found["tokens"], lines)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """The engine and its workers, all of them started by it in a session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Of each position but the last: what it says of the token that follows."""
    return torch.from_numpy(logits[:, :-1]).double().log_softmax(-1).numpy()


def of_the_prompts(logprobs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Those of the prompts' own tokens."""
    return np.take_along_axis(logprobs, prompts[:, 1:, None], -1)[..., 0]
