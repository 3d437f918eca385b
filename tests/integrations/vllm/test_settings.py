# SPDX-License-Identifier: Apache-2.0
"""Which quantization settings are of a kind that padmarlin reads."""

from __future__ import annotations

from typing import Any

import pytest

from padmarlin.integrations.vllm.settings import method_of

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
PACKED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
}


def compressed(**group: Any) -> dict[str, Any]:
    values = {"weights": {"num_bits": 4, "type": "int"}, **group}
    return {**PACKED, "config_groups": {"group_0": values}}


@pytest.mark.parametrize(
    "settings, method",
    [
        (GPTQ, "gptq"),
        ({**GPTQ, "bits": 8, "checkpoint_format": "gptq_v2"}, "gptq"),
        ({key: value for key, value in GPTQ.items() if key != "quant_method"}, "gptq"),
        ({**GPTQ, "bits": 3}, None),
        ({**GPTQ, "checkpoint_format": "marlin"}, None),
        ({**GPTQ, "pack_dtype": "int64"}, None),
        (AWQ, "awq"),
        ({**AWQ, "version": "GEMM"}, "awq"),
        ({"w_bit": 4, "q_group_size": 128, "zero_point": True, "version": "GEMM"}, "awq"),
        ({**AWQ, "version": "gemv"}, None),
        ({**AWQ, "bits": 8}, None),
        ({**AWQ, "zero_point": False}, "awq"),
        (PACKED, "compressed-tensors"),
        (compressed(weights={"num_bits": 8, "type": "int"}), "compressed-tensors"),
        (compressed(weights={"num_bits": 4, "type": "float"}), None),
        (compressed(weights={"num_bits": 3, "type": "int"}), None),
        (compressed(format="float-quantized"), None),
        (compressed(input_activations={"num_bits": 8}), None),
        (compressed(weights=None), None),
        ({**PACKED, "config_groups": None}, None),
        ({"quant_method": "fp8"}, None),
        ({}, None),
    ],
)
def test_method(settings: dict[str, Any], method: str | None) -> None:
    assert method_of(settings) == method
