# SPDX-License-Identifier: Apache-2.0
"""What other engines do with a tensor-parallel cut of a quantized matrix: facts, as data.

An engine is an ordered table of facts, each with the versions it holds for, how it is known and
where to read more. `judge` finds the first fact that applies to a cut. No engine is imported.
"""

from padmarlin.engines.cut import Cut
from padmarlin.engines.fact import Engine, Evidence, Fact, Outcome, Verdict
from padmarlin.engines.judge import ENGINES, judge

__all__ = ["ENGINES", "Cut", "Engine", "Evidence", "Fact", "Outcome", "Verdict", "judge"]
