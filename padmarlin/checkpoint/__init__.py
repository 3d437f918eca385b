# SPDX-License-Identifier: Apache-2.0
"""``load_weight``: one layer of a quantized checkpoint, whole or one rank's part.

Only the words, columns and groups that the rank needs are read from disk, and nothing that is read
is trusted: whatever the files hold, the answer is a weight or a ValueError.
"""

from padmarlin.checkpoint.load import load_weight

__all__ = ["load_weight"]
