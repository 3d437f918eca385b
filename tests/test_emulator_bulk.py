# SPDX-License-Identifier: Apache-2.0
"""The emulator's copy engine: bulk copies, mbarriers, and every mistake it is there to find."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels import emulator

native = emulator()
BulkFault = native.BulkFault
SCHEDULES = [(0, "eager"), (0, "late"), (1, "late"), (2, "random"), (3, "random")]
CHUNKS = 9


def run(fault: native.BulkFault, seed: int, delivery: str) -> bool:
    """Whether the chunks come out reversed. Values are from seed 1, never the poison's 0xff."""
    values = np.random.default_rng(1).integers(0, 255, 512 * CHUNKS, np.uint8)
    options = native.LaunchOptions(seed=seed, delivery=delivery)
    out = native.bulk_pipeline(values, fault=fault, options=options)
    return np.array_equal(out, values.reshape(CHUNKS, 32, 16)[:, ::-1].reshape(-1))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_correct_ring_is_correct_under_every_schedule(schedule: tuple[int, str]) -> None:
    assert run(BulkFault.NONE, *schedule)


WRONG_VALUES = {
    BulkFault.NO_FULL_WAIT: "late",
    BulkFault.NO_EMPTY_WAIT: "eager",
    BulkFault.FREED_EARLY: "late",
}


@pytest.mark.parametrize("fault", WRONG_VALUES, ids=str)
def test_a_missing_wait_spoils_values(fault: native.BulkFault) -> None:
    """Or ends in a report, of more copies than a phase has room for."""
    seen = 0
    for seed in range(1, 11):
        try:
            seen += not run(fault, seed, WRONG_VALUES[fault])
        except native.LaunchError:
            seen += 1
    assert seen >= 5, f"seen under {seen} of 10 schedules"


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (BulkFault.TOO_FEW_BYTES, r"thread \d+: (the mbarrier at 10\d\d completes a phase while a "
         r"copy of 256 bytes is under way|256 bytes arrive at the mbarrier at 10\d\d, 256 more)"),
        (BulkFault.TOO_MANY_BYTES, r"deadlock(?s:.*)wait at an mbarrier(?s:.*)"
         r"the mbarrier at 10\d\d lacks 0 arrivals and 512 bytes"),
        (BulkFault.NO_FENCE, r"thread \d+: bulk_copy: no fence_mbarrier_init has shown"),
        (BulkFault.NO_INIT, r"thread \d+: mbarrier_\w+: no mbarrier_init has made an mbarrier at"),
        (BulkFault.ARRIVES_TWICE, r"deadlock|all of its 1 arrivals|wait at an mbarrier|under way"),
        (BulkFault.EXIT_WITH_COPIES, r"deadlock|bulk copies that no wait at an mbarrier"),
        (BulkFault.MISALIGNED_SHARED, r"bulk_copy: shared address 8 is misaligned"),
        (BulkFault.MISALIGNED_GLOBAL, r"bulk_copy: misaligned global address"),
        (BulkFault.GLOBAL_OUT_OF_RANGE, r"bulk_copy: reads 256 bytes outside the registered"),
    ],
)  # fmt: skip
def test_mistakes_are_reported(
    fault: native.BulkFault, message: str, schedule: tuple[int, str]
) -> None:
    with pytest.raises(native.LaunchError, match=message) as error:
        run(fault, *schedule)
    assert str(error.value).startswith("bulk_pipeline_probe: ")
