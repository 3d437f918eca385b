# SPDX-License-Identifier: Apache-2.0
"""`vllm serve` with and without the plugin, over its HTTP API: for a machine with GPUs.

    tools/vllm_serve_check.py CHECKPOINT --tp 2 [--tolerance 0.05] [-- options of vllm serve]

CHECKPOINT is a folder with config.json, model.safetensors and reference.npz (input_ids, logits), as
those in tests/checkpoints. The prompts' log-probabilities are asked for at the TP size with
PADMARLIN_VLLM=auto, always and never, and compared with the reference. Exits 1 if auto or always is
off by more than the tolerance; never is shown for comparison and may refuse to start. By default
nothing is eager: torch.compile and CUDA graphs are in use.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

START_S = 600


def main() -> int:
    arguments = sys.argv[1:]
    more: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, more = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--tolerance", type=float, default=0.05)
    options = parser.parse_args(arguments)

    reference = np.load(options.checkpoint / "reference.npz")
    prompts = reference["input_ids"]
    wanted = own_logprobs(reference["logits"], prompts)
    failed = False
    for mode in ("auto", "always", "never"):
        found, said = serve_and_ask(options, more, mode, prompts.tolist())
        for line in said:
            print(f"  {line}")
        if found is None:
            print(f"PADMARLIN_VLLM={mode}: did not start")
            failed |= mode != "never"
            continue
        error = float(np.abs(np.array(found) - wanted).max())
        verdict = "ok" if error <= options.tolerance else "WRONG"
        print(f"PADMARLIN_VLLM={mode}: largest error of a log-probability {error:.4f} {verdict}")
        failed |= mode != "never" and verdict != "ok"
    return int(failed)


def own_logprobs(logits: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Of the prompts' own tokens but the first."""
    values = logits[:, :-1].astype(np.float64)
    values -= values.max(-1, keepdims=True)
    values -= np.log(np.exp(values).sum(-1, keepdims=True))
    return np.take_along_axis(values, prompts[:, 1:, None], -1)[..., 0]


def serve_and_ask(
    options: argparse.Namespace, more: list[str], mode: str, prompts: list[list[int]]
) -> tuple[list[list[float]] | None, list[str]]:
    """(log-probabilities, what padmarlin or an error said); None: the server did not start."""
    port = free_port()
    command = ["vllm", "serve", str(options.checkpoint), "--port", str(port)]
    command += ["--tensor-parallel-size", str(options.tp), "--dtype", options.dtype]
    command += ["--skip-tokenizer-init", "--max-model-len", "64", *more]
    environment = {**os.environ, "PADMARLIN_VLLM": mode}
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}"
            found = None
            if is_up(server, address):
                found = [ask(address, str(options.checkpoint), prompt) for prompt in prompts]
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has given up already
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        text = Path(log.name).read_text(errors="replace").splitlines()
    said = [line.partition("] ")[2] for line in text if "] padmarlin: " in line]
    if found is None:
        said += [line for line in text if "rror" in line][:5] or text[-3:]
    return found, said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_up(server: subprocess.Popen[bytes], address: str) -> bool:
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    return False


def ask(address: str, model: str, prompt: list[int]) -> list[float]:
    body: dict[str, Any] = {"model": model, "prompt": prompt, "max_tokens": 1}
    body |= {"temperature": 0, "prompt_logprobs": 0, "detokenize": False}
    request = urllib.request.Request(
        f"{address}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        choice = json.load(answer)["choices"][0]
    return [
        choice["prompt_logprobs"][position][str(token)]["logprob"]
        for position, token in enumerate(prompt)
        if position
    ]


if __name__ == "__main__":
    sys.exit(main())
