# SPDX-License-Identifier: Apache-2.0
"""Bad input of every kind: the answer is right, or it is a refusal in this package's words.

`test_arguments.py` changes arguments of valid calls, `test_files.py` damages checkpoints,
`test_cli.py` command lines. `make test-fuzz` runs 2000 cases per target, `make test` a few.
Every case is the same on every run, and a failure prints how to replay it.
"""

import os

CASES = int(os.environ.get("PADMARLIN_FUZZ_CASES", "40"))
"""Cases per target."""
