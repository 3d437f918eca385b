# SPDX-License-Identifier: Apache-2.0
"""Keeps what tools/gpu_check.sh found: gpu_report.py (STEP OUTCOME SECONDS SUMMARY)...

One JSON object a step, with the machine and the commit, in benchmarks/results/*_check.jsonl.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
FIELDS = 4


def environment() -> dict[str, object]:
    """What `padmarlin env` knows."""
    done = subprocess.run(
        [sys.executable, "-m", "padmarlin", "env", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def main(arguments: list[str]) -> int:
    if not arguments or len(arguments) % FIELDS:
        print(__doc__, file=sys.stderr)
        return 2
    now = datetime.datetime.now(datetime.timezone.utc)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    known = environment()
    machine = {
        "date": now.isoformat(timespec="seconds"),
        "gpu": gpu,
        "driver": known.get("driver"),
        "torch": torch.__version__,
        "commit": known.get("commit"),
    }
    slug = re.sub(r"\W+", "-", gpu).strip("-").lower()
    path = ROOT / "benchmarks" / "results" / f"{now:%Y-%m-%d-%H%M%S}_{slug}_check.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as report:
        for i in range(0, len(arguments), FIELDS):
            step, outcome, seconds, summary = arguments[i : i + FIELDS]
            row = {"step": step, "outcome": outcome, "seconds": int(seconds), "summary": summary}
            report.write(json.dumps(machine | row) + "\n")
    print(f"report: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
