# SPDX-License-Identifier: Apache-2.0
"""What the adapters hand to other packages, held against stand-ins that read it as documented.

The packages themselves need a GPU. Their stand-ins here compute, in fp32, what the real ones say
their arguments mean; whether the real ones do is for the benchmark's own check on a device.
"""

from __future__ import annotations

import sys
from types import ModuleType
from unittest import mock

import pytest
import torch

from benchmarks.method import copies_of, error_of, product
from benchmarks.peers import OWN, PEERS
from benchmarks.peers.base import missing_module, splits_a_group
from benchmarks.weights import random_activations, random_weight
from tests.benchmarks.double import make_case

BY_NAME = {peer.name: peer for peer in (OWN, *PEERS)}


def unpacked(words, bits, rows):
    """Codes along the first dimension, lowest bits first."""
    fields = [(words >> shift) & (2**bits - 1) for shift in range(0, 32, bits)]
    return torch.stack(fields, dim=1).flatten(0, 1)[:rows]


class GptqLayer(torch.nn.Module):
    """A layer over GPTQ tensors, zero points as they are."""

    def __init__(self, bits, group, k, n):
        super().__init__()
        self.bits, self.group, self.k, self.n = bits, group, k, n
        self.qzeros = None

    def cuda(self):
        return self

    def forward(self, a):
        groups = self.g_idx.long() if hasattr(self, "g_idx") else torch.arange(self.k) // self.group
        codes = unpacked(self.qweight, self.bits, self.k).float()
        zeros = torch.full((self.scales.shape[0], self.n), 2.0 ** (self.bits - 1))
        if self.qzeros is not None:
            zeros = unpacked(self.qzeros.t(), self.bits, self.n).t().float()
        return (a.float() @ ((codes - zeros[groups]) * self.scales.float()[groups])).to(a.dtype)


def humming():
    class HummingLayer(GptqLayer):
        def __init__(self, shape_n, shape_k, weight_config, torch_dtype, **padding):
            assert weight_config["quant_method"] == "gptq" and not weight_config["desc_act"]
            assert padding == {"pad_n_to_multiple": 256, "pad_k_to_multiple": 128}
            config = (weight_config["bits"], weight_config["group_size"])
            super().__init__(*config, shape_k, shape_n)
            self.sym = weight_config["sym"]

        def load_from_tensors(self, tensors):
            assert self.sym == ("qzeros" not in tensors)
            for name, tensor in tensors.items():
                setattr(self, name, torch.nn.Parameter(tensor.clone(), requires_grad=False))

        def transform(self):
            self.ready = True

    return {"humming.layer": {"HummingLayer": HummingLayer}}


def gemlite():
    class A16Wn:
        def __init__(self, device, dtype):
            self.dtype = dtype

        def from_weights(self, codes, scales, zeros, bits, group):
            n, k = codes.shape
            assert codes.dtype == torch.uint8 and int(codes.max()) < 2**bits
            assert scales.shape == zeros.shape == (n, k // group)
            groups = torch.arange(k) // group
            dense = (codes.float() - zeros.float()[:, groups]) * scales.float()[:, groups]
            linear = torch.nn.Linear(k, n, bias=False, dtype=self.dtype)
            linear.weight = torch.nn.Parameter(dense.to(self.dtype), requires_grad=False)
            return linear

    return {"gemlite.helper": {"A16Wn": A16Wn}}


def gptqmodel():
    class MarlinLinear(GptqLayer):
        def __init__(self, bits, group_size, desc_act, sym, in_features, out_features, **others):
            super().__init__(bits, group_size, in_features, out_features)
            assert sym and others == {"bias": False, "dtype": torch.float16}
            empty = torch.empty(0, dtype=torch.int32)
            self.qweight = torch.nn.Parameter(empty, requires_grad=False)
            self.g_idx = torch.nn.Parameter(empty.clone(), requires_grad=False)
            self.scales = torch.nn.Parameter(torch.empty(0).half(), requires_grad=False)

        def post_init(self):
            assert self.qweight.numel() and self.g_idx.shape == (self.k,)

    return {"gptqmodel.nn_modules.qlinear.marlin": {"MarlinLinear": MarlinLinear}}


@pytest.fixture
def stand_in(monkeypatch):
    def install(modules):
        for name, content in modules.items():
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                module = ModuleType(".".join(parts[:end]))
                module.__path__ = []
                monkeypatch.setitem(sys.modules, module.__name__, module)
            vars(module).update(content)

    return install


@pytest.mark.parametrize(
    "name, modules, coding",
    [
        ("humming", humming, {}),
        ("humming", humming, {"symmetric": False}),
        ("humming", humming, {"bits": 8}),
        ("gemlite", gemlite, {}),
        ("gemlite", gemlite, {"symmetric": False, "bits": 8}),
        ("gptqmodel-marlin", gptqmodel, {}),
        ("gptqmodel-marlin", gptqmodel, {"bits": 8}),
        ("gptqmodel-marlin", gptqmodel, {"act_order": True}),
    ],
)
def test_an_adapter_hands_over_what_the_package_documents(name, modules, coding, stand_in):
    stand_in(modules())
    case = make_case(k=256, n=128, group=64, **coding)
    assert BY_NAME[name].refuses(case) is None
    weight = random_weight(case, "cpu")
    operand = copies_of(BY_NAME[name].prepare(weight), 2)[1]
    a = random_activations(case, "cpu")
    assert error_of(operand(a), product(a, weight.dense())).allowed(a.dtype)


@pytest.mark.parametrize("symmetric", [True, False])
def test_int4pack_means_q_minus_8_times_s_plus_z(symmetric):
    case = make_case(k=256, n=128, group=64, dtype="bfloat16", symmetric=symmetric)
    weight = random_weight(case, "cpu")
    a = random_activations(case, "cpu")

    def convert(pairs, tiles):
        assert pairs.dtype == torch.uint8 and pairs.shape == (128, 128) and tiles == 8
        return torch.stack((pairs >> 4, pairs & 15), dim=2).flatten(1)  # (n, k)

    def multiply(a, packed, group, both):
        assert both.shape == (4, 128, 2) and both.dtype == torch.bfloat16
        scales, zeros = both.float()[torch.arange(256) // group].unbind(2)
        return (a.float() @ ((packed.t().float() - 8) * scales + zeros)).bfloat16()

    with (
        mock.patch.object(torch.ops.aten, "_convert_weight_to_int4pack", convert),
        mock.patch.object(torch.ops.aten, "_weight_int4pack_mm", multiply),
    ):
        result = BY_NAME["int4pack"].prepare(weight)(a)
    assert error_of(result, product(a, weight.dense())).allowed(a.dtype)


PLAIN = {"k": 512, "n": 256, "group": 128}


@pytest.mark.parametrize(
    "names, case, reason",
    [
        ("humming vllm-marlin machete gemlite gptqmodel-marlin", make_case(**PLAIN), None),
        ("cublas padmarlin pad+slice", make_case(k=3, n=1, k_start=3), None),
        ("humming vllm-marlin machete gemlite gptqmodel-marlin int4pack",
         make_case(k=192, n=128, k_start=192, group=128, dtype="bfloat16"),
         "begins 64 rows inside a group"),
        ("humming vllm-marlin machete gemlite gptqmodel-marlin int4pack",
         make_case(k=192, n=128, group=128, dtype="bfloat16"), "not whole groups"),
        ("humming vllm-marlin machete gemlite int4pack", make_case(**PLAIN, act_order=True), ""),
        ("humming gptqmodel-marlin", make_case(k=128, n=3420, group=128), "takes"),
        ("machete", make_case(k=128, n=192, group=64), "steps of 128"),
        ("vllm-marlin machete gptqmodel-marlin", make_case(k=64, n=256, group=16), "groups of"),
        ("vllm-marlin", make_case(k=128, n=7391, group=128), "even n"),
        ("int4pack", make_case(**PLAIN), "bfloat16"),
        ("gptqmodel-marlin", make_case(**PLAIN, symmetric=False), "no zero points"),
        ("vllm-marlin machete", make_case(**PLAIN, bits=8, symmetric=False), "4 bits only"),
    ],
)  # fmt: skip
def test_refusals(names, case, reason):
    for name in names.split():
        said = BY_NAME[name].refuses(case)
        assert (said is None) == (reason is None), name
        assert reason is None or reason in said, name


def test_whole_groups():
    assert splits_a_group(make_case(k=256, k_start=256, group=128)) is None
    assert splits_a_group(make_case(k=100, k_start=100, group=-1)) is None
    assert "begins 72 rows" in splits_a_group(make_case(k=200, k_start=200, group=128))


def test_why_a_package_is_missing(tmp_path, monkeypatch):
    assert missing_module("json", "never") is None
    assert missing_module("no_such.part", "pip install it") == "no package no_such: pip install it"
    (tmp_path / "broken_package.py").write_text("raise OSError('libcudart.so.12')")
    monkeypatch.syspath_prepend(tmp_path)
    said = missing_module("broken_package", "how")
    assert said == "broken_package does not import: OSError: libcudart.so.12"


def test_vllm_marlin_gets_the_tensors_that_vllm_makes():
    """Up to the operators themselves, on vLLM's own Python."""
    ops = pytest.importorskip("vllm._custom_ops")
    from vllm.model_executor.layers.quantization.utils import marlin_utils

    case = make_case(k=192, n=96, group=64, m=8, symmetric=False)  # padded to 192 x 128
    weight = random_weight(case, "cpu")
    called = []

    def repack(words, k, n, bits):
        assert words.shape == (k * bits // 32, n)
        return torch.zeros(k // 16, n * bits // 2, dtype=torch.int32)

    def gemm(*arguments):
        called.append(arguments)
        return arguments[0].new_zeros(arguments[0].shape[0], arguments[11])

    with (
        mock.patch.object(ops, "gptq_marlin_repack", repack),
        mock.patch.object(marlin_utils, "num_compute_units", return_value=132),
        mock.patch.object(torch.ops._C, "marlin_gemm", gemm, create=True),
    ):
        operand = copies_of(BY_NAME["vllm-marlin"].prepare(weight), 2)[1]
        assert operand(random_activations(case, "cpu")).shape == (8, 96)
    (arguments,) = called
    assert arguments[4].shape == (3, 128) and arguments[7].shape == (3, 16)  # scales, zeros
    assert arguments[10:13] == (8, 128, 192)
