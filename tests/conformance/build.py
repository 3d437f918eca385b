# SPDX-License-Identifier: Apache-2.0
"""Compiles probes.cpp twice: by g++ with the emulator, by nvcc for devices."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "conformance"
EMULATOR = ROOT / "tests" / "emulator"
BUILD = ROOT / "build" / "conformance"

FOLDERS = [
    ROOT / "csrc" / "core",
    ROOT / "csrc" / "cuda",
    ROOT / "tests" / "probes",
    HERE,
    EMULATOR,
]
SUFFIXES = (".h", ".cuh", ".cpp")

# The emulator without its bindings.
RUNTIME = [
    "async_copy", "bank_conflicts", "collectives", "fiber", "mbarrier", "memory",
    "scheduler", "tensor_copy", "warpgroup",
]  # fmt: skip


class CannotBuild(RuntimeError):
    """There is no compiler; the message says which."""


def host_library() -> Path:
    """The probes on the emulator."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise CannotBuild("no g++ (version 11 or newer) for the emulator's half")
    return _build("host", [
        compiler, "-std=c++20", "-O2", "-shared", "-fPIC", "-fvisibility=hidden",
        # As in tests/emulator/CMakeLists.txt: round where the source says so, look at memory as
        # words of another type, pass over #pragma unroll.
        "-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas",
        *_includes(EMULATOR, ROOT / "csrc", ROOT / "csrc" / "cuda"),
        str(HERE / "probes.cpp"), *(str(EMULATOR / f"{name}.cpp") for name in RUNTIME),
    ])  # fmt: skip


def device_library() -> Path:
    """The probes on devices of compute capability 8.0 and newer."""
    return _build("device", [
        find_nvcc(), "-std=c++20", "-O2", "-shared", "--expt-relaxed-constexpr",
        "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall",
        "-diag-suppress=20050",  # "inline" on a kernel in a header, which g++ needs
        "-gencode=arch=compute_80,code=[sm_80,compute_80]",
        "-gencode=arch=compute_90a,code=sm_90a",
        *_includes(ROOT / "csrc" / "cuda", ROOT / "csrc"),
        "-x", "cu", str(HERE / "probes.cpp"),
    ])  # fmt: skip


def find_nvcc() -> str:
    """As build_backend/padmarlin_build.py looks for it."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    for place in (os.environ.get("CUDACXX"), shutil.which("nvcc"), f"{home}/bin/nvcc"):
        if place and os.access(place, os.X_OK):
            return place
    raise CannotBuild("no nvcc in CUDACXX, on PATH or in CUDA_HOME")


def _includes(*folders: Path) -> list[str]:
    return [f"-I{folder}" for folder in folders]


def _fingerprint(command: list[str]) -> str:
    """Of the command and of every source it may read."""
    digest = hashlib.sha256(" ".join(command).encode())
    for path in sorted(p for folder in FOLDERS for p in folder.rglob("*")):
        if path.suffix in SUFFIXES:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(name: str, command: list[str]) -> Path:
    """The library in build/conformance, compiled if a source has changed. One process at a time."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held until the file is closed
        library = BUILD / f"{name}-{_fingerprint(command)}.so"
        if not library.exists():
            for old in BUILD.glob(f"{name}-*.so"):
                old.unlink()
            partial = library.with_suffix(".partial")
            done = subprocess.run(
                [*command, "-o", str(partial)],
                capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
            partial.rename(library)
    return library
