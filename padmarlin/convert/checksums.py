# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of a folder's files, in a file that ``sha256sum -c`` reads too."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from padmarlin.convert.refuse import refuse

CHECKSUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_CHUNK = 2**23


def file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_checksums(folder: Path, names: Iterable[str]) -> str:
    """The text of the file, with a line for each of `names`."""
    return "".join(f"{file_digest(folder / name)}  {name}\n" for name in names)


def verify_checksums(folder: Path) -> None:
    """Refuses a folder whose files are not what its SHA256SUMS says; none: nothing is compared."""
    path = folder / CHECKSUMS
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            refuse(CHECKSUMS, repr(line[:80]), "lines of a SHA-256, two blanks and a file's name")
        expected, name = match.groups()
        if not (folder / name).is_file():
            refuse(CHECKSUMS, f"{name!r}, which is not there", "every file that it names")
        found = file_digest(folder / name)
        if found != expected:
            remedy = "download the file again: it is damaged"
            refuse(name, f"SHA-256 {found}", f"{expected}, as {CHECKSUMS} says", remedy)
