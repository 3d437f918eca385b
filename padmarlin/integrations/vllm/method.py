# SPDX-License-Identifier: Apache-2.0
"""The linear method: makes a rank's parameters, repacks them, multiplies by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import vllm.envs as envs
from torch import Tensor
from vllm.config import get_current_vllm_config_or_none
from vllm.model_executor.layers.linear import (
    LinearMethodBase,
    ReplicatedLinear,
    register_weight_loader_v2_supported_method,
)
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
)

from padmarlin.errors import refusal
from padmarlin.formats.common import WEIGHT_DTYPES
from padmarlin.integrations.vllm.parameters import (
    ColumnsParameter,
    GroupsParameter,
    ignored_parameter,
)
from padmarlin.integrations.vllm.product import Product, differences, structure_of
from padmarlin.integrations.vllm.reading import UNSET, Coding, Rank
from padmarlin.layout import symmetric_zero
from padmarlin.packing import Packing
from padmarlin.weight import PaddedWeight

_NAMES = {
    Packing.GPTQ: ("qweight", "scales", "qzeros", "g_idx"),
    Packing.AWQ: ("qweight", "scales", "qzeros", "g_idx"),
    Packing.COMPRESSED_TENSORS: (
        "weight_packed",
        "weight_scale",
        "weight_zero_point",
        "weight_g_idx",
    ),
}
"""How the checkpoint, and so vLLM, calls words, scales, zeros and g_idx."""

_DUMMY_SCALE = 2.0**-10


@register_weight_loader_v2_supported_method
class PadmarlinLinearMethod(LinearMethodBase):
    """One layer, of any packing, cut or not; each layer has a method of its own."""

    def __init__(self, coding: Coding, name: str, *, reads_g_idx: bool) -> None:
        self.coding = coding
        self.name = name
        self.reads_g_idx = reads_g_idx or coding.act_order
        self.batch_invariant = bool(envs.VLLM_BATCH_INVARIANT)
        self.products: tuple[Product, ...] = ()
        self.structure: list[dict[str, Any]] = []

    def create_weights(
        self,
        layer: Any,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra_weight_attrs: Any,
    ) -> None:
        if params_dtype not in WEIGHT_DTYPES:
            function, expected = "padmarlin.integrations.vllm", "float16 or bfloat16"
            raise ValueError(
                refusal(function, f"dtype of {self.name}", params_dtype, expected, "pass --dtype")
            )
        is_cut = input_size_per_partition != input_size
        self.rank = Rank(
            self.name,
            self.coding,
            full_k=input_size,
            k=input_size_per_partition,
            k_start=layer.tp_rank * input_size_per_partition if is_cut else 0,
        )
        self.parts = list(output_partition_sizes)
        self.loadable = _loadable_columns(layer, sum(self.parts))
        self.products, self.structure = (), []
        self.vllm_config = get_current_vllm_config_or_none()
        self.dtype = params_dtype
        self._register(layer, _loader_of(layer, extra_weight_attrs["weight_loader"]))

    def _register(self, layer: Any, weight_loader: Callable[..., None]) -> None:
        coding, rank = self.coding, self.rank
        words, scales, zeros, g_idx = self._names
        empty = rank.empty(sum(self.parts), len(self.parts))
        codes_factor = coding.per_word if coding.packing == Packing.AWQ else 1
        for name, kind, absent, read, packed_factor in (
            (words, "words", 0, rank.read_words, codes_factor),
            (scales, "scales", 0, rank.read_scales, 1),
            (zeros, "zeros", symmetric_zero(coding.bits), rank.read_zeros, coding.per_word),
        ):
            parameter = ColumnsParameter(
                data=empty[kind],
                absent=absent,
                read=read,
                output_dim=coding.axes[1],
                packed_factor=packed_factor,
                weight_loader=weight_loader,
            )
            layer.register_parameter(name, parameter)
        if self.reads_g_idx:
            groups = GroupsParameter(data=empty["g_idx"], read=rank.read_g_idx)
            layer.register_parameter(g_idx, groups)
        if coding.packing == Packing.COMPRESSED_TENSORS:
            layer.register_parameter("weight_shape", ignored_parameter())

    def process_weights_after_loading(self, layer: Any) -> None:
        """Repacks what was loaded. When weights are reloaded, vLLM puts the parameters of
        `create_weights` back, calls this again, and copies the result to where the first one is."""
        if not isinstance(layer._parameters.get(self._names[0]), ColumnsParameter):
            return  # nothing has been loaded since
        words, scales, zeros, g_idx = self._loaded(*self._take_parameters(layer))
        weights = [
            self.rank.repack(
                words[:, columns],
                scales[:, columns],
                zeros[:, columns],
                groups,
                self.dtype,
            )
            for columns, groups in self._matrices(g_idx)
        ]
        # vLLM looks for a "qweight" to know the device of a layer with LoRA.
        products = tuple(
            Product.of(weight, f"_{index}" if index else "") for index, weight in enumerate(weights)
        )
        self._keep_structure(products, weights)
        for product, weight in zip(products, weights, strict=True):
            product.register(layer, weight, self.name)
        self.products = products

    @property
    def _names(self) -> tuple[str, ...]:
        return _NAMES[self.coding.packing]

    def _take_parameters(self, layer: Any) -> list[Any]:
        """Those of `create_weights`; the layer keeps none of them."""
        layer._parameters.pop("weight_shape", None)
        return [layer._parameters.pop(name, None) for name in self._names]

    def _loaded(
        self,
        words: ColumnsParameter,
        scales: ColumnsParameter,
        zeros: ColumnsParameter,
        g_idx: GroupsParameter | None,
    ) -> list[Any]:
        """Their data, complete."""
        if self._is_dummy and not words.arrived.any():
            self._fill_dummies(scales, zeros, g_idx)
        else:
            needed = (words, scales) if self.coding.sym else (words, scales, zeros)
            for name, parameter in zip(self._names, needed, strict=False):
                self._check_arrived(name, parameter)
            for parameter in (words, scales, zeros):
                parameter.complete()
            if g_idx is not None:
                g_idx.complete()
        return [None if found is None else found.data for found in (words, scales, zeros, g_idx)]

    def _fill_dummies(
        self, scales: ColumnsParameter, zeros: ColumnsParameter, g_idx: GroupsParameter | None
    ) -> None:
        """Numbers with which a layer takes the path that its real weights will."""
        scales.data.fill_(_DUMMY_SCALE)  # vLLM's random ones may be too small for fp16
        if not self.coding.sym:
            zeros.data.zero_()
        if self.coding.act_order and g_idx is not None:
            g_idx.data[:] = torch.arange(self.rank.k) % self.rank.groups[1]

    def _check_arrived(self, name: str, parameter: ColumnsParameter) -> None:
        missing = (~parameter.arrived[: self.loadable]).nonzero()
        if len(missing):
            function, argument = "padmarlin.integrations.vllm", f"{name} of {self.name}"
            got = f"none for {len(missing)} of {self.loadable} columns, from {int(missing[0])} on"
            remedy = "check that the checkpoint is complete"
            raise ValueError(refusal(function, argument, got, "all in the checkpoint", remedy))

    def _keep_structure(self, products: tuple[Product, ...], weights: list[PaddedWeight]) -> None:
        """The numbers of the calls become constants of compiled graphs, and some depend on the
        weights. vLLM keeps graphs under a hash of its settings; these go into it, so that another
        checkpoint in the same place does not get the graph of this one. Weights that are reloaded
        must have the same: the graphs are there, and vLLM copies tensor by tensor."""
        structure = structure_of(products, weights)
        if self.structure and structure != self.structure:
            function, argument = "padmarlin.integrations.vllm", f"reloaded weights of {self.name}"
            got, expected = differences(structure, self.structure)
            remedy = "restart vLLM with these weights"
            raise ValueError(refusal(function, argument, got, expected, remedy))
        self.structure = structure
        if self.vllm_config is not None and isinstance(self.vllm_config.additional_config, dict):
            marks = self.vllm_config.additional_config.setdefault("padmarlin", {})
            marks[self.name] = structure

    def _matrices(self, g_idx: Tensor | None) -> list[tuple[slice, Tensor | None]]:
        """(columns, g_idx) of the weights to make: one, unless fused matrices have rows in
        different orders, as gate and up may if they were quantized apart."""
        if g_idx is None or bool((g_idx == UNSET).all()):
            self._check_may_lack_g_idx()
            return [(slice(None), None)]
        if bool((g_idx == g_idx[0]).all()):
            return [(slice(None), g_idx[0])]
        stops = [sum(self.parts[: index + 1]) for index in range(len(self.parts))]
        return [
            (slice(stop - size, stop), g_idx[index])
            for index, (stop, size) in enumerate(zip(stops, self.parts, strict=True))
        ]

    def _check_may_lack_g_idx(self) -> None:
        """compressed-tensors leaves g_idx unset where nothing is reordered; for GPTQ with act-order
        it must be there."""
        coding = self.coding
        if coding.act_order and coding.packing == Packing.GPTQ:
            function, argument = "padmarlin.integrations.vllm", f"g_idx of {self.name}"
            expected = "one, as desc_act is true"
            remedy = "download the checkpoint again, or quantize it with desc_act false"
            raise ValueError(refusal(function, argument, "none", expected, remedy))

    @property
    def _is_dummy(self) -> bool:
        """--load-format dummy: nothing was loaded, only sizes and speed count."""
        config = self.vllm_config
        return config is not None and config.load_config.load_format == "dummy"

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(self.products) == 1:
            y = self.products[0](layer, rows, bias, self.batch_invariant)
        else:
            sizes = [product.n for product in self.products]
            biases = [None] * len(sizes) if bias is None else bias.split(sizes)
            y = torch.cat(
                [
                    product(layer, rows, part, self.batch_invariant)
                    for product, part in zip(self.products, biases, strict=True)
                ],
                dim=-1,
            )
        return y.view(*x.shape[:-1], y.shape[-1])

    def tie_weights(self, layer: Any, embed_tokens: Any) -> Any:
        """An lm_head that shares the embedding's weight is not quantized, whatever the settings
        say of lm_heads."""
        self._take_parameters(layer)
        layer.quant_method = UnquantizedEmbeddingMethod()
        return layer.quant_method.tie_weights(layer, embed_tokens)


def _loader_of(layer: Any, weight_loader: Callable[..., None]) -> Callable[..., None]:
    """What loads the layer's parameters. vLLM's own loaders leave the cutting to the parameter
    only in column- and row-parallel layers; the others copy into its data themselves."""
    if isinstance(layer, ReplicatedLinear):
        return _load_all_columns
    if isinstance(layer, ParallelLMHead):
        return _vocabulary_loader(layer)
    return weight_loader


def _loadable_columns(layer: Any, columns: int) -> int:
    """Those that a checkpoint has: the first ones, where vLLM pads a vocabulary."""
    if not isinstance(layer, ParallelLMHead):
        return columns
    own = layer.shard_indices
    return max(own.org_vocab_end_index - own.org_vocab_start_index, 0)


def _load_all_columns(param: ColumnsParameter, loaded: Tensor) -> None:
    param.store(loaded, 0, 0, param.data.shape[1])


def _vocabulary_loader(layer: ParallelLMHead) -> Callable[..., None]:
    """Loads the rank's part of the vocabulary; the columns that vLLM pads it with stay 0."""
    start = layer.shard_indices.org_vocab_start_index
    columns = _loadable_columns(layer, 0)

    def load(param: ColumnsParameter, loaded: Tensor) -> None:
        if columns > 0:
            param.store(loaded, start, 0, columns)

    return load
