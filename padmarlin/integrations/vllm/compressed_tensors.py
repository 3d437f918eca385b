# SPDX-License-Identifier: Apache-2.0
"""vLLM's compressed-tensors configuration, with those layers that padmarlin takes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch.nn import Module
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import (
    CompressedTensorsConfig,
)
from vllm.model_executor.layers.quantization.compressed_tensors.schemes import (
    CompressedTensorsWNA16,
)
from vllm.model_executor.layers.quantization.compressed_tensors.transform.linear import (
    get_linear_transform_schemes,
)
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.models.utils import WeightsMapper

from padmarlin.errors import refusal
from padmarlin.integrations.vllm.journal import Journal
from padmarlin.integrations.vllm.mode import Mode
from padmarlin.integrations.vllm.reading import Coding
from padmarlin.integrations.vllm.settings import REORDERING
from padmarlin.integrations.vllm.taking import Taking
from padmarlin.packing import Packing


class PadmarlinCompressedTensorsConfig(Taking, CompressedTensorsConfig):
    """Everything but the choice of the method is vLLM's. Only weights packed into 4 or 8 bits, with
    activations as they are, are ever taken."""

    reordered_targets: set[str]  # of config_groups in act-order

    @classmethod
    def of(cls, config: dict[str, Any], mode: Mode) -> PadmarlinCompressedTensorsConfig:
        # vLLM refuses act-order while it reads the groups; so it is told of it afterwards.
        made = cls.from_config(_in_order(config))
        made.mode, made.journal = mode, Journal()
        made.reordered_targets = {
            target
            for group in config.get("config_groups", {}).values()
            if _reorders(group)
            for target in group.get("targets", ())
        }
        return made

    def get_quant_method(self, layer: Module, prefix: str) -> QuantizeMethodBase | None:
        own = super().get_quant_method
        if isinstance(layer, RoutedExperts):
            # As vLLM does before it looks up what experts are: "Linear" means them too.
            self._add_fused_moe_to_target_scheme_map()
            expert = f"{prefix}.0.{layer.ckpt_down_proj_name}"
            self._check_in_order(layer, expert)
            self._warn_of_experts(layer, prefix, expert)
            return own(layer, prefix)
        coding = self._coding_of(layer, prefix)
        if coding is None:
            self._check_in_order(layer, prefix)
            return own(layer, prefix)

        def own_if_in_order() -> QuantizeMethodBase | None:
            self._check_in_order(layer, prefix)
            return own(layer, prefix)

        reordered = self._is_reordered(layer, prefix)
        return self.choose(layer, prefix, coding, own_if_in_order, reads_g_idx=reordered)

    def _check_in_order(self, layer: Module, name: str) -> None:
        """Refuses what vLLM would refuse, had it been told of act-order: it ignores g_idx."""
        if self._is_reordered(layer, name):
            function, expected = "padmarlin.integrations.vllm", "static or none"
            remedy = "quantize it with static act-order: padmarlin does not run this kind of layer"
            raise ValueError(refusal(function, f"actorder of {name}", "group", expected, remedy))

    def _coding_of(self, layer: Module, prefix: str) -> Coding | None:
        """None: nothing that padmarlin reads, or not quantized."""
        if not isinstance(layer, (LinearBase, ParallelLMHead)):
            return None
        try:
            scheme = self.get_scheme(layer=layer, layer_name=prefix)
        except (ValueError, NotImplementedError):
            return None
        mapping = self.packed_modules_mapping
        transforms = get_linear_transform_schemes(layer, prefix, self.transform_config, mapping)
        # Subclasses of the scheme would mean something else.
        if type(scheme) is not CompressedTensorsWNA16 or scheme.num_bits not in (4, 8):
            return None
        if any(transforms):
            return None
        reordered = self._is_reordered(layer, prefix)
        return Coding(
            Packing.COMPRESSED_TENSORS,
            bits=scheme.num_bits,
            group_size=scheme.group_size,
            sym=scheme.symmetric,
            act_order=reordered
            and scheme.group_size != -1
            and layer.input_size > scheme.group_size,
        )

    def _is_reordered(self, layer: Module, prefix: str) -> bool:
        settings = self._settings_of(layer, prefix)
        return settings is not None and any(
            settings is self.target_scheme_map.get(target) for target in self.reordered_targets
        )

    def _settings_of(self, layer: Module, name: str) -> dict[str, Any] | None:
        if not isinstance(layer, (LinearBase, VocabParallelEmbedding, RoutedExperts)):
            return None
        try:
            return self.get_scheme_dict(layer, name)
        except ValueError:  # no target matches
            return None

    def _warn_of_experts(self, layer: RoutedExperts, prefix: str, expert: str) -> None:
        weights = (self._settings_of(layer, expert) or {}).get("weights")
        if weights is None or weights.type != "int" or weights.num_bits not in (4, 8):
            return
        coding = Coding(
            Packing.COMPRESSED_TENSORS,
            bits=weights.num_bits,
            group_size=weights.group_size or -1,
            sym=weights.symmetric,
            act_order=False,
        )
        self.warn_of_experts(layer, prefix, coding)

    def apply_vllm_mapper(self, hf_to_vllm_mapper: WeightsMapper) -> None:
        super().apply_vllm_mapper(hf_to_vllm_mapper)
        # The same names as those of target_scheme_map, mapped as vLLM has just mapped them.
        paths = {name for name in self.reordered_targets if "." in name and name[:3] != "re:"}
        mapped = {hf_to_vllm_mapper.map_name(name) for name in paths}
        self.reordered_targets = (self.reordered_targets - paths) | {
            name for name in mapped if name
        }

    def get_checkpoint_weight_mapper(self) -> WeightsMapper:
        self.report()
        return CompressedTensorsConfig.get_checkpoint_weight_mapper()


def _reorders(group: dict[str, Any]) -> bool:
    return (group.get("weights") or {}).get("actorder") in REORDERING


def _in_order(config: dict[str, Any]) -> dict[str, Any]:
    """The settings without act-order, as far as vLLM refuses it."""
    groups = config.get("config_groups", {})
    if not any(map(_reorders, groups.values())):
        return config
    config = deepcopy(config)
    for group in config["config_groups"].values():
        if _reorders(group):
            group["weights"]["actorder"] = None
    return config
