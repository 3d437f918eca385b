# SPDX-License-Identifier: Apache-2.0
"""python -m tests.mutants [NAME or KIND...]: plants bugs, all of them by default, runs their tests.

A KIND is plain, asan or tsan: the bugs that this program shows.
"""

import os
import sys

from tests.mutants.run import run
from tests.mutants.table import MUTANTS

wanted = set(sys.argv[1:])
chosen = [m for m in MUTANTS if not wanted or {m.name, m.seen_as[0]} & wanted]
if not chosen:
    sys.exit(f"tests.mutants: no planted bug is called {' or '.join(sorted(wanted))}")
sys.exit(0 if run(chosen, jobs=int(os.environ.get("JOBS", "2"))) else 1)
