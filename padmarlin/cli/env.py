# SPDX-License-Identifier: Apache-2.0
"""``padmarlin env``: versions, devices, driver and what was compiled, for bug reports.

It reports on broken installations too, so every fact is found by itself and none may raise.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from padmarlin import __version__
from padmarlin._extension import extension_status
from padmarlin.cli.explain import explanation
from padmarlin.cli.manners import bad_input_refused
from padmarlin.layout import FORMAT_VERSION

# The oldest Linux driver that runs programs of a CUDA major version: CUDA Toolkit Release Notes,
# table "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility".
_LEAST_DRIVER = {12: "525.60.13", 13: "580"}

_COMMAND_TIMEOUT_S = 10  # nvidia-smi hangs where a driver is broken


@dataclass(frozen=True)
class Device:
    name: str
    capability: tuple[int, int]
    kernels: str  # how its kernels were compiled, or why there are none


def _output(*command: str) -> str:
    """What a command prints, stripped; empty if it is absent, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _commit() -> str | None:
    """The commit of the source tree this runs from, else of the one that pip installed from."""
    root = Path(__file__).resolve().parents[2]
    if (root / ".git").exists():
        return _output("git", "-C", str(root), "rev-parse", "--short=12", "HEAD") or None
    try:
        origin = metadata.distribution("padmarlin").read_text("direct_url.json")  # PEP 610
        commit = json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")
    except (metadata.PackageNotFoundError, ValueError):
        commit = None
    return commit or extension_status().build_info.get("commit") or None


def _driver() -> str | None:
    """The version of the loaded kernel module; no CUDA call, so it works when those do not."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:  # no driver, or WSL, where only nvidia-smi knows
        text = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    match = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return match[0] if match else None


def _driver_needed(cudart: int | None) -> str | None:
    """The least driver for a CUDART_VERSION (1000 * major + 10 * minor)."""
    return _LEAST_DRIVER.get(cudart // 1000) if cudart else None


def _older(version: str, than: str) -> bool:
    return [int(x) for x in version.split(".")] < [int(x) for x in than.split(".")]


def compiled_for(capability: tuple[int, int], architectures: list[str]) -> str | None:
    """The entry of ``architectures`` that a GPU would run, as the driver chooses; None: none.

    Machine code (sm_XY) runs on its own major version from its minor version on; with the suffix
    ``a`` on exactly X.Y, with ``f`` on its family. PTX (compute_XY) runs on anything newer.
    """

    def rank(entry: str) -> tuple[bool, int] | None:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", entry)
        if not match:
            return None
        target = (int(match[2]), int(match[3]))
        machine_code = match[1] == "sm"
        if match[4] == "a":
            fits = capability == target
        elif machine_code or match[4] == "f":
            fits = capability[0] == target[0] and capability >= target
        else:
            fits = capability >= target
        return (machine_code, 10 * target[0] + target[1]) if fits else None

    fitting = [(score, entry) for entry in architectures if (score := rank(entry)) is not None]
    return max(fitting)[1] if fitting else None


def _kernels_for(capability: tuple[int, int]) -> str:
    status = extension_status()
    if capability < (8, 0):
        return "none: the kernels need compute capability 8.0"
    if not status.available:
        return "none: " + status.reason
    entry = compiled_for(capability, status.build_info["architectures"])
    if entry is None:
        return "none: add this GPU to TORCH_CUDA_ARCH_LIST and reinstall"
    how = "compiled by the driver at first use" if entry.startswith("compute") else "ready"
    return f"{entry}, {how}{_family(capability, entry)}"


def _family(capability: tuple[int, int], entry: str) -> str:
    """What a GPU as new as Hopper or newer gets (core/select_gemm.h, can_use_wgmma)."""
    if capability == (9, 0):
        return "; mma.sync and wgmma" if entry.endswith("_90a") else "; mma.sync alone: no sm_90a"
    return "; mma.sync alone: wgmma is for sm_90" if capability > (9, 0) else ""


def _devices() -> tuple[list[Device], str | None]:
    """The GPUs that torch sees, and what kept it from seeing any."""
    try:
        if not torch.cuda.is_available():
            return [], "torch has no CUDA" if torch.version.cuda is None else "torch sees no GPU"
        found = []
        for index in range(torch.cuda.device_count()):
            capability = torch.cuda.get_device_capability(index)
            name = torch.cuda.get_device_name(index)
            found.append(Device(name, capability, _kernels_for(capability)))
        return found, None
    except Exception as error:  # a report on a broken driver is what this verb is for
        return [], f"{type(error).__name__}: {error}"


def collect() -> dict[str, Any]:
    """Every fact, ready for JSON; what is not known is None."""
    status = extension_status()
    devices, no_devices = _devices()
    nvcc = re.search(r"release ([\d.]+)", _output("nvcc", "--version"))
    return {
        "padmarlin": __version__,
        "commit": _commit(),
        "format_version": FORMAT_VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "extension": asdict(status),
        "driver": _driver(),
        "driver_needed": _driver_needed(status.build_info.get("cudart")),
        "devices": [asdict(device) for device in devices],
        "no_devices": no_devices,
        "nvcc": nvcc[1] if nvcc else None,
        "nvcc_path": shutil.which("nvcc"),
    }


def _kernels_line(extension: dict[str, Any]) -> str:
    if not extension["available"]:
        return f"[yellow]CPU only[/]: {extension['reason']}"
    info = extension["build_info"]
    return f"[green]compiled[/] by nvcc {info['nvcc']} for {', '.join(info['architectures'])}"


def _driver_line(driver: str | None, needed: str | None) -> str:
    if driver is None:
        return "none found" + (f"; the kernels need >= {needed}" if needed else "")
    if needed is None:
        return driver
    if _older(driver, needed):
        return f"[red]{driver}: too old, the kernels need >= {needed}[/]"
    return f"{driver} (the kernels need >= {needed})"


def _table(facts: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    commit = f", commit {facts['commit']}" if facts["commit"] else ""
    table.add_row("padmarlin", f"{facts['padmarlin']}{commit}, format {facts['format_version']}")
    table.add_row("kernels", _kernels_line(facts["extension"]))
    table.add_row("python", facts["python"])
    table.add_row("torch", f"{facts['torch']}, CUDA {facts['torch_cuda'] or 'none'}")
    table.add_row("platform", facts["platform"])
    table.add_row("driver", _driver_line(facts["driver"], facts["driver_needed"]))
    nvcc = f"{facts['nvcc']}, {facts['nvcc_path']}" if facts["nvcc"] else "none on PATH"
    table.add_row("nvcc", nvcc)
    if not facts["devices"]:
        table.add_row("devices", f"none: {facts['no_devices']}")
    for index, device in enumerate(facts["devices"]):
        major, minor = device["capability"]
        table.add_row(f"cuda:{index}", f"{device['name']} ({major}.{minor}): {device['kernels']}")
    return table


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    explain: Annotated[
        tuple[int, int, int] | None,
        typer.Option(metavar="M K N", help="Print how (M, K) times a (K, N) weight would be run."),
    ] = None,
    bits: Annotated[int, typer.Option(help="4 or 8; with --explain.")] = 4,
    group_size: Annotated[int, typer.Option(help="Rows per group, or -1; with --explain.")] = 128,
    act_order: Annotated[bool, typer.Option("--act-order", help="With --explain.")] = False,
    asymmetric: Annotated[bool, typer.Option("--asym", help="With --explain.")] = False,
    batch_invariant: Annotated[
        bool, typer.Option("--batch-invariant", help="With --explain.")
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(help="h200, a100, l40s, ...; with --explain.  [default: the one here]"),
    ] = None,
) -> None:
    """Print versions, devices, driver and what was compiled, for bug reports.

    With --explain: which kernel, tile and partition gemm would choose, and its predicted time. No
    GPU is needed for that, but the compiled library is.
    """
    if explain is not None:
        with bad_input_refused():
            text = _explanation(
                *explain,
                bits=bits,
                group_size=group_size,
                act_order=act_order,
                asymmetric=asymmetric,
                batch_invariant=batch_invariant,
                gpu=gpu,
            )
        typer.echo(text, nl=False)
        return
    facts = collect()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        Console(highlight=False).print(_table(facts))


def _explanation(m: int, k: int, n: int, **options: Any) -> str:
    status = extension_status()
    if not status.available:
        return (
            f"padmarlin env --explain: CPU only: {status.reason}. The choice of kernels is part of "
            "the compiled library;\ninstall with nvcc >= 12.0 to see it (no GPU is needed). CPU "
            "tensors run the reference in torch.\n"
        )
    text = explanation(m, k, n, **options)
    if text.startswith("PADMARLIN_"):  # a variable of the environment that cannot be followed
        raise ValueError(f"env: --explain: {text.rstrip()}")
    return text
