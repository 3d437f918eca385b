# SPDX-License-Identifier: Apache-2.0
"""The vLLM plugin (``docs/vllm.md``): ``register`` is its ``vllm.general_plugins`` entry point.

Importing this package imports nothing of vLLM, and neither do its pure modules (mode, versions,
decide, reading, words). The others do; ``register`` imports them, inside vLLM's own processes.
"""

from __future__ import annotations

from padmarlin.integrations.vllm.log import logger
from padmarlin.integrations.vllm.mode import Mode, mode_from_environment
from padmarlin.integrations.vllm.versions import why_unsupported

__all__ = ["register"]


def register() -> None:
    """Makes vLLM know the quantization methods "padmarlin" and "padmarlin-auto".

    vLLM calls it once in each of its processes; calling it again changes nothing. No model is
    looked at, and nothing of vLLM's own is replaced.

    Raises ValueError if ``PADMARLIN_VLLM`` is none of auto, always, never.
    """
    mode = mode_from_environment()
    if mode is Mode.NEVER:
        return
    import vllm

    reason = why_unsupported(getattr(vllm, "__version__", ""))
    if reason is not None:
        logger.warning("padmarlin: does nothing: %s", reason)
        return
    from padmarlin.integrations.vllm.front import register_methods

    register_methods()
