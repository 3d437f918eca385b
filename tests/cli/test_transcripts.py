# SPDX-License-Identifier: Apache-2.0
"""Documents show what commands print. To renew them: python -m tests.cli.test_transcripts"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from padmarlin.cli import app

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENTS = ("cli.md", "cli-plan.md", "qwen2-72b-tp2.md")
CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"

_FILE = re.compile(r"<!-- file: (\S+) -->\n```json\n(.*?)```", re.DOTALL)
_TRANSCRIPT = re.compile(r"(<!-- transcript -->\n```console\n)\$ ([^\n]+)\n(.*?)(```)", re.DOTALL)


def renewed(text: str) -> str:
    """The document with the output of every command it shows."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        Path("checkpoints").symlink_to(CHECKPOINTS)
        try:
            for name, content in _FILE.findall(text):
                Path(name).write_text(content)
            return _TRANSCRIPT.sub(
                lambda found: f"{found[1]}$ {found[2]}\n{_output(found[2])}{found[4]}", text
            )
        finally:
            os.chdir(before)


def _output(line: str) -> str:
    """Of a command, or the last lines of it: "... | tail -5"."""
    command, _, tail = line.partition(" | tail -")
    program, *arguments = shlex.split(command)
    assert program == "padmarlin", line
    output = CliRunner().invoke(app, arguments).output
    return "".join(output.splitlines(keepends=True)[-int(tail) if tail else 0 :])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_transcripts_are_what_the_commands_print(name: str) -> None:
    text = (DOCS / name).read_text()
    assert len(_TRANSCRIPT.findall(text)) == text.count("```console")
    assert renewed(text) == text, "renew it: python -m tests.cli.test_transcripts"


if __name__ == "__main__":
    for document in DOCUMENTS:
        path = DOCS / document
        path.write_text(renewed(path.read_text()))
