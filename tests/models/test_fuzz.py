# SPDX-License-Identifier: Apache-2.0
"""Whatever a config.json holds, a plan or a ValueError with a reason comes of it."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from padmarlin.models import plan_model
from tests.models.configs import CONFIGS, write

QUANTIZATION = {
    "quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True,
    "dynamic": {}, "modules_in_block_to_quantize": [["mlp.down_proj"]],
}  # fmt: skip

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.sampled_from([2**24, 2**31, 2**64, -(2**63), 29568, 100_003]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["gptq", "awq", "compressed-tensors", "fp8", "deepseek_v3", "mixtral"]),
    st.lists(st.one_of(st.integers(-1, 100), st.text(max_size=4)), max_size=4),
    st.dictionaries(st.text(max_size=6), st.integers(), max_size=3),
)


def objects(value: Any) -> list[dict[str, Any]]:
    """The object and every object in it."""
    if not isinstance(value, dict):
        return []
    return [value, *(found for part in value.values() for found in objects(part))]


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_configs(data: st.DataObject) -> None:
    config = copy.deepcopy(CONFIGS[data.draw(st.sampled_from(sorted(CONFIGS)))])
    config["quantization_config"] = copy.deepcopy(QUANTIZATION)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(objects(config)))
        if not place:
            continue
        key = data.draw(st.sampled_from(sorted(place)))
        if data.draw(st.booleans()):
            place[key] = data.draw(VALUES)
        else:
            del place[key]
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory), config)
        try:
            said = plan_model(path, tp=(1, 8)).to_json()["schema"]
        except ValueError as error:
            said = str(error)
    assert said.startswith(("padmarlin.plan/1", "plan_model: ")), said
