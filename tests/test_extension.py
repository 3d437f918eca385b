# SPDX-License-Identifier: Apache-2.0
"""The compiled library: what it links to, what it says of itself, and life without it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from padmarlin import _extension
from padmarlin.layout import FORMAT_VERSION

ROOT = Path(__file__).resolve().parent.parent

built = pytest.mark.skipif(
    not _extension.LIBRARY.exists(), reason="no padmarlin/_C.so: built without nvcc"
)
needs_binutils = pytest.mark.skipif(not shutil.which("readelf"), reason="no readelf (binutils)")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_source_list_is_complete() -> None:
    sources = (ROOT / "cmake" / "sources.cmake").read_text()
    listed = re.findall(r"^ +(csrc/\S+)$", sources, re.MULTILINE)
    present = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "csrc").rglob("*")
        if path.suffix in (".cpp", ".cu")
    ]
    assert sorted(listed) == sorted(present)


def test_import_does_not_initialise_cuda() -> None:
    assert python("import padmarlin, torch; print(torch.cuda.is_initialized())") == "False"


@built
def test_library_loads() -> None:
    status = _extension.extension_status()
    assert status.available, status.reason
    _extension.require_extension("gemm")


@built
def test_build_info() -> None:
    info = _extension.extension_status().build_info
    assert info["format_version"] == FORMAT_VERSION
    assert info["cudart"] >= 12000
    assert info["architectures"]
    for architecture in info["architectures"]:
        assert re.fullmatch(r"(sm|compute)_\d{2,3}[af]?", architecture)


@built
def test_cuda_kernels_are_registered() -> None:
    code = (
        "import padmarlin, torch; print(all(torch._C._dispatch_has_kernel_for_dispatch_key("
        "'padmarlin::' + op, 'CUDA') for op in ('dequantize', 'gemm', 'gemm_out', 'repack')))"
    )
    assert python(code) == "True"


@built
@needs_binutils
def test_library_links_to_no_cuda_library() -> None:
    report = subprocess.check_output(["readelf", "-d", _extension.LIBRARY], text=True)
    needed = re.findall(r"NEEDED.*\[(.+?)\.so", report)
    allowed = {"libtorch_cpu", "libtorch", "libc10", "libstdc++", "libgcc_s", "libc", "libm"}
    allowed |= {"libdl", "libpthread", "librt", "ld-linux-x86-64", "ld-linux-aarch64"}
    assert set(needed) <= allowed
    assert "RPATH" not in report, "an RPATH would name a directory of the building machine"
    assert "RUNPATH" not in report, "a RUNPATH would name a directory of the building machine"


@built
@needs_binutils
def test_library_uses_only_the_stable_abi() -> None:
    report = subprocess.check_output(
        ["readelf", "--wide", "--dyn-syms", _extension.LIBRARY], text=True
    )
    undefined = [line.split() for line in report.splitlines() if " UND " in line]
    unversioned = {fields[7] for fields in undefined if len(fields) > 7 and "@" not in fields[7]}
    # libc and libstdc++ version their symbols; what has no version comes from torch, or is one of
    # the three that crtbegin.o asks for if they are there.
    unversioned -= {"__gmon_start__", "_ITM_registerTMCloneTable", "_ITM_deregisterTMCloneTable"}
    strangers = {s for s in unversioned if not s.startswith(("aoti_torch_", "torch_"))}
    assert not strangers


def test_missing_library_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_extension, "LIBRARY", tmp_path / "_C.so")
    monkeypatch.setattr(_extension, "_status", _extension._load())
    with pytest.raises(RuntimeError, match=r"gemm: .*built without nvcc.*pip install"):
        _extension.require_extension("gemm")


def test_broken_library_is_reported_not_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "_C.so"
    broken.write_bytes(b"not an ELF file")
    monkeypatch.setattr(_extension, "LIBRARY", broken)
    status = _extension._load()
    assert not status.available
    assert "does not load" in status.reason
