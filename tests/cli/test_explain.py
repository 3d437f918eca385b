# SPDX-License-Identifier: Apache-2.0
"""``padmarlin env --explain``, with csrc/torch/explain.cpp in a library of its own: no nvcc needed,
nor torch. To renew its texts in docs/cli.md: python -m tests.cli.test_explain
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from padmarlin import _extension
from padmarlin._extension import ExtensionStatus
from padmarlin.cli import app, env

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "cli.md"
_SHOWN = re.compile(r"(<!-- explain -->\n```text\n)\$ padmarlin ([^\n]+)\n(.*?)(```)", re.DOTALL)

runner = CliRunner()


def build(folder: Path) -> Path:
    library = folder / "explain.so"
    sources = [ROOT / "csrc" / "torch" / name for name in ("explain.cpp", "force_kernel.cpp")]
    command = ["g++", "-std=c++20", "-O3", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    # What the CUDA sources would say of themselves.
    stub = folder / "stub.cpp"
    stub.write_text(
        "namespace padmarlin::wgmma { bool is_built(); bool is_built() { return true; } }"
    )
    subprocess.run(
        [*command, f"-I{ROOT / 'csrc'}", *map(str, [*sources, stub]), "-o", str(library)],
        check=True,
    )
    return library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    return build(tmp_path_factory.mktemp("explain"))


def use(library: Path, patch: pytest.MonkeyPatch) -> None:
    available = ExtensionStatus(True, "")
    patch.setattr(_extension, "LIBRARY", library)
    patch.setattr(_extension, "_status", available)
    patch.setattr(env, "extension_status", lambda: available)


@pytest.fixture
def compiled(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(library, monkeypatch)


def explain(*arguments: object) -> str:
    result = runner.invoke(app, ["env", "--explain", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    result = runner.invoke(app, ["env", "--explain", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def renewed(text: str) -> str:
    return _SHOWN.sub(
        lambda found: (
            f"{found[1]}$ padmarlin {found[2]}\n"
            f"{runner.invoke(app, shlex.split(found[2])).output}{found[4]}"
        ),
        text,
    )


def test_the_document_shows_what_is_printed(compiled: None) -> None:
    text = DOCUMENT.read_text()
    assert len(_SHOWN.findall(text)) == text.count("<!-- explain -->") > 0
    assert renewed(text) == text, "renew it: python -m tests.cli.test_explain"


def test_lines_fit_a_terminal(compiled: None) -> None:
    for m in (1, 16, 64, 100_000):
        for gpu in _extension.named_devices():
            text = explain(m, 29568, 59136, "--gpu", gpu, "--bits", 8, "--asym")
            assert max(map(len, text.splitlines())) <= 100, text


def test_the_choice_is_the_one_that_launches_use(compiled: None) -> None:
    """Against the bindings of the same header."""
    from tests.kernels import emulator

    native = emulator()
    for m, k, n in [(1, 29568, 8192), (16, 14784, 8192), (64, 3420, 1280), (4096, 8192, 10240)]:
        text = explain(m, k, n, "--gpu", "a100")
        problem = native.GemmProblem(m=m, padded_n=-(-n // 64) * 64, padded_k=-(-k // 64) * 64)
        choice = native.choose(problem, native.named_devices["a100"])
        assert f"{choice.tile_m} x {choice.tile_n} (M x N)" in text
        assert f"over {choice.partition.blocks} blocks" in text


def test_what_is_said_of_other_m_does_not_depend_on_m(compiled: None) -> None:
    """One row of 3420 elements is aligned, several are not."""
    said = [
        [line for line in explain(m, 3420, 1280, "--gpu", "h200").splitlines() if start in line]
        for m in (1, 16)
        for start in ("  by M", "  wgmma")
    ]
    assert said[:2] == said[2:]
    assert said[1] == ["  wgmma      from M = 65 on (a prediction)"]


@pytest.mark.parametrize("gpu, why", [("a100", "sm_80"), ("b200", "sm_100"), ("5090", "sm_120")])
def test_a_gpu_without_wgmma_says_so(compiled: None, gpu: str, why: str) -> None:
    assert f"not on {why}" in explain(128, 8192, 8192, "--gpu", gpu)


def test_the_price_of_batch_invariance_is_printed(compiled: None) -> None:
    for options in ([], ["--batch-invariant"]):
        text = explain(1, 8192, 1280, "--gpu", "h200", *options)
        price = re.search(r"batch_invariant=True +([\d.]+) us predicted, ([\d.]+) x", text)
        assert price is not None, text
        assert float(price[2]) >= 1


@pytest.mark.parametrize(
    "name, value", [("KERNEL", "marlin"), ("SCRATCH", "2"), ("KERNEL", "wgmma")]
)
def test_a_variable_that_cannot_be_followed_is_bad_input(name: str, value: str) -> None:
    if not _extension.extension_status().available:
        pytest.skip(_extension.extension_status().reason)
    command = [sys.executable, "-m", "padmarlin", "env", "--explain", "1", "64", "64"]
    done = subprocess.run(
        [*command, "--gpu", "a100"], capture_output=True, text=True, check=False,
        env=os.environ | {f"PADMARLIN_{name}": value},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith(f"padmarlin env: --explain: PADMARLIN_{name}"), done.stderr
    assert done.stderr.count("\n") == 1


def test_bad_input_is_one_line(compiled: None) -> None:
    assert "'h200'" in refused(1, 64, 64, "--gpu", "voodoo")
    assert "M" in refused(0, 64, 64)
    assert "bits" in refused(1, 64, 64, "--bits", 5)
    assert "at most" in refused(1, 2**31 - 1, 64)
    assert "refused" in explain(2**31 - 300, 64, 2**26)


def run_alone(library: Path, code: str, **variables: str) -> str:
    """The library reads PADMARLIN_KERNEL once: each value needs a process."""
    script = (
        "import ctypes, sys\n"
        "library = ctypes.CDLL(sys.argv[1])\n"
        "library.padmarlin_explain.restype = ctypes.c_char_p\n"
        "library.padmarlin_force_kernel.restype = ctypes.c_bool\n"
        "def explain(m, gpu=b'h200', invariant=False):\n"
        "    sizes = map(ctypes.c_int64, (m, 8192, 8192, 8192, 8192, 4, 1))\n"
        "    flags = (False, False, ctypes.c_int64(16), invariant)\n"
        "    return library.padmarlin_explain(gpu, *sizes, *flags).decode()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script + code, str(library)],
        env={**os.environ, **variables}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_forced_kernel_is_explained(library: Path) -> None:
    text = run_alone(library, "print(explain(64), explain(1))", PADMARLIN_KERNEL="mma")
    assert text.count("kernel     mma.sync") == text.count("chosen by  PADMARLIN_KERNEL=mma") == 2
    text = run_alone(library, "print(explain(64), explain(1))", PADMARLIN_KERNEL="wgmma")
    assert text.count("kernel     wgmma") == text.count("chosen by  PADMARLIN_KERNEL=wgmma") == 2
    for value in ("auto", ""):
        text = run_alone(library, "print(explain(64), explain(1))", PADMARLIN_KERNEL=value)
        assert "PADMARLIN_KERNEL" not in text


def test_a_kernel_that_cannot_be_forced_is_refused(library: Path) -> None:
    text = run_alone(library, "print(explain(64, b'a100'))", PADMARLIN_KERNEL="wgmma")
    assert text.startswith("PADMARLIN_KERNEL=wgmma: refused: not on sm_80")
    text = run_alone(library, "print(explain(64, invariant=True))", PADMARLIN_KERNEL="wgmma")
    assert text.startswith("PADMARLIN_KERNEL=wgmma: refused: not with batch_invariant")
    text = run_alone(library, "print(explain(64))", PADMARLIN_KERNEL="marlin")
    assert text.startswith("PADMARLIN_KERNEL is 'marlin', expected auto, mma, wgmma or scratch")


def test_the_scratch_is_forced_and_forbidden(library: Path) -> None:
    text = run_alone(library, "print(explain(64), explain(1, b'a100'))", PADMARLIN_KERNEL="scratch")
    assert text.count("kernel     weights dequantized into a scratch") == 2
    assert text.count("chosen by  PADMARLIN_KERNEL=scratch") == 2
    both = {"PADMARLIN_KERNEL": "scratch", "PADMARLIN_SCRATCH": "0"}
    text = run_alone(library, "print(explain(64))", **both)
    assert text.startswith("PADMARLIN_KERNEL=scratch: refused: forbidden by PADMARLIN_SCRATCH=0")
    for value, said in [
        ("0", "forbidden by PADMARLIN_SCRATCH=0"),
        ("1", "only where"),
        ("", "only"),
    ]:
        text = run_alone(library, "print(explain(4096))", PADMARLIN_SCRATCH=value)
        assert f"\n  scratch    {said}" in text, value
    text = run_alone(library, "print(explain(64))", PADMARLIN_SCRATCH="no")
    assert text.startswith("PADMARLIN_SCRATCH is 'no', expected 0 or 1")


def test_a_process_can_change_the_kernel(library: Path) -> None:
    code = (
        "for name in (b'mma', b'wgmma', b'auto', b'marlin'):\n"
        "    print(library.padmarlin_force_kernel(name), explain(64).splitlines()[1])\n"
    )
    lines = run_alone(library, code, PADMARLIN_KERNEL="marlin").splitlines()
    assert [line.split()[0] for line in lines] == ["True", "True", "True", "False"]
    assert ["mma.sync" in line for line in lines] == [True, False, False, False]


def test_a_name_that_is_no_kernel_is_refused(compiled: None) -> None:
    with pytest.raises(ValueError, match="name: got 'marlin'.*'auto', 'mma', 'wgmma' or 'scratch'"):
        _extension.force_kernel("marlin")


def test_without_the_compiled_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ExtensionStatus(False, "built without nvcc")
    monkeypatch.setattr(env, "extension_status", lambda: missing)
    monkeypatch.setattr(_extension, "_status", missing)
    assert "built without nvcc" in explain(1, 64, 64)
    with pytest.raises(RuntimeError, match="built without nvcc"):
        _extension.named_devices()
    with pytest.raises(RuntimeError, match=r"force_kernel.*built without nvcc"):
        _extension.force_kernel("mma")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        use(build(Path(directory)), patch)
        DOCUMENT.write_text(renewed(DOCUMENT.read_text()))
