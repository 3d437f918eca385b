# SPDX-License-Identifier: Apache-2.0
"""The linear method: makes a rank's parameters, repacks them, multiplies by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import torch
import vllm.envs as envs
from torch import Tensor
from torch.nn import Module, Parameter
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
    group_parameter,
    ignored_parameter,
)
from padmarlin.integrations.vllm.reading import UNSET, Coding, Rank
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


@dataclass(frozen=True)
class _Product:
    """One call of the operator. Its tensors are parameters of the layer, their names end in
    `suffix`, so that they move, and are captured and compiled, as any others."""

    suffix: str
    k: int
    n: int
    bits: int
    front_pad: int
    dequant: int

    @classmethod
    def register(cls, layer: Module, weight: PaddedWeight, suffix: str) -> _Product:
        for name in ("qweight", "scales", "zeros", "slice_rows", "columns"):
            tensor = getattr(weight, name)
            kept = None if tensor is None else Parameter(tensor, requires_grad=False)
            layer.register_parameter(name + suffix, kept)
        dequant = int(weight.dequant)
        return cls(suffix, weight.k, weight.n, weight.bits, weight.front_pad, dequant)

    def __call__(
        self, layer: Module, rows: Tensor, bias: Tensor | None, batch_invariant: bool
    ) -> Tensor:
        return torch.ops.padmarlin.gemm(
            rows,
            getattr(layer, "qweight" + self.suffix),
            getattr(layer, "scales" + self.suffix),
            getattr(layer, "zeros" + self.suffix),
            getattr(layer, "slice_rows" + self.suffix),
            getattr(layer, "columns" + self.suffix),
            bias,
            self.k,
            self.n,
            self.bits,
            self.front_pad,
            self.dequant,
            batch_invariant,
        )


@register_weight_loader_v2_supported_method
class PadmarlinLinearMethod(LinearMethodBase):
    """One layer, of any packing, cut or not; each layer has a method of its own."""

    def __init__(self, coding: Coding, name: str, *, reads_g_idx: bool) -> None:
        self.coding = coding
        self.name = name
        self.reads_g_idx = reads_g_idx or coding.act_order
        self.batch_invariant = bool(envs.VLLM_BATCH_INVARIANT)
        self.products: tuple[_Product, ...] = ()

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
        self.products = ()
        self.vllm_config = get_current_vllm_config_or_none()
        self.dtype = params_dtype
        self._register(layer, _loader_of(layer, extra_weight_attrs["weight_loader"]))

    def _register(self, layer: Any, weight_loader: Callable[..., None]) -> None:
        coding, rank = self.coding, self.rank
        words, scales, zeros, g_idx = _NAMES[coding.packing]
        empty = rank.empty(sum(self.parts), len(self.parts))
        codes_factor = coding.per_word if coding.packing == Packing.AWQ else 1
        for name, data, read, packed_factor in (
            (words, empty["words"], rank.read_words, codes_factor),
            (scales, empty["scales"], rank.read_scales, 1),
            (zeros, empty["zeros"], rank.read_zeros, coding.per_word),
        ):
            parameter = ColumnsParameter(
                data=data,
                read=read,
                output_dim=coding.axes[1],
                packed_factor=packed_factor,
                weight_loader=weight_loader,
            )
            layer.register_parameter(name, parameter)
        if self.reads_g_idx:
            layer.register_parameter(g_idx, group_parameter(empty["g_idx"], rank.read_g_idx))
        if coding.packing == Packing.COMPRESSED_TENSORS:
            layer.register_parameter("weight_shape", ignored_parameter())

    def process_weights_after_loading(self, layer: Any) -> None:
        if self.products:
            return
        words, scales, zeros, g_idx = self._take_parameters(layer)
        if self._is_dummy:
            scales.fill_(_DUMMY_SCALE)  # vLLM's random ones may be too small for fp16
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
        many = len(weights) > 1
        self.products = tuple(
            _Product.register(layer, weight, f"_{index}" if many else "")
            for index, weight in enumerate(weights)
        )
        self._mark_compiled_graphs(weights)

    def _mark_compiled_graphs(self, weights: list[PaddedWeight]) -> None:
        """The numbers of the call become constants of compiled graphs, and some depend on the
        weights. vLLM keeps graphs under a hash of its settings; these go into it, so that another
        checkpoint in the same place does not get the graph of this one."""
        if self.vllm_config is None or not isinstance(self.vllm_config.additional_config, dict):
            return
        constants = [
            [*astuple(product), weight.zeros is None, weight.columns is None]
            for product, weight in zip(self.products, weights, strict=True)
        ]
        marks = self.vllm_config.additional_config.setdefault("padmarlin", {})
        marks[self.name] = constants

    def _take_parameters(self, layer: Any) -> list[Any]:
        """The data of what was loaded; the layer keeps none of it."""
        layer._parameters.pop("weight_shape", None)
        found = (layer._parameters.pop(name, None) for name in _NAMES[self.coding.packing])
        return [None if parameter is None else parameter.data for parameter in found]

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
        it must be there, unless the weights are vLLM's dummies."""
        coding = self.coding
        if coding.act_order and coding.packing == Packing.GPTQ and not self._is_dummy:
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
        own = layer.shard_indices
        return partial(_load_vocabulary, own.org_vocab_start_index, own.org_vocab_end_index)
    return weight_loader


def _load_all_columns(param: ColumnsParameter, loaded: Tensor) -> None:
    param.store(loaded, 0, 0, param.data.shape[1])


def _load_vocabulary(start: int, stop: int, param: ColumnsParameter, loaded: Tensor) -> None:
    """The rank's part of the vocabulary; the columns that vLLM pads it with stay 0."""
    if stop > start:
        param.store(loaded, start, 0, stop - start)
