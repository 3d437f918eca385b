# SPDX-License-Identifier: Apache-2.0
"""Models as tensor parallelism sees them: their linear layers, and a plan for cutting them.

Read from config.json and from the headers of safetensors files; no tensor is loaded.
"""

from padmarlin.models.cuts import LayerCut, Padding
from padmarlin.models.layers import LinearLayer, Part
from padmarlin.models.plan import ModelPlan, plan_model
from padmarlin.models.quantization import Quantization
from padmarlin.models.read import Model, read_model
from padmarlin.models.remedies import Remedy, dividing_group_size, padded_intermediate_size

__all__ = [
    "LayerCut",
    "LinearLayer",
    "Model",
    "ModelPlan",
    "Padding",
    "Part",
    "Quantization",
    "Remedy",
    "dividing_group_size",
    "padded_intermediate_size",
    "plan_model",
    "read_model",
]
