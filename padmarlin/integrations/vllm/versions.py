# SPDX-License-Identifier: Apache-2.0
"""Which versions of vLLM the plugin knows. It rests on classes that vLLM may change in any."""

from __future__ import annotations

import re

FIRST = (0, 32)
LAST = (0, 33)
"""Minor versions, all patches of them included. ``docs/vllm.md`` says what was tested on which."""


def why_unsupported(version: str) -> str | None:
    """Why the plugin must leave a vLLM of this version alone; None: it need not."""
    found = re.match(r"(\d+)\.(\d+)(?:\.|$|\+|rc|\.?dev)", version)
    if found and FIRST <= (int(found[1]), int(found[2])) <= LAST:
        return None
    supported = f"{FIRST[0]}.{FIRST[1]} to {LAST[0]}.{LAST[1]}"
    return f"this is vLLM {version or 'of unknown version'}, the plugin supports {supported}"
