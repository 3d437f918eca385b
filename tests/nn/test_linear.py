# SPDX-License-Identifier: Apache-2.0
"""QuantLinear: the checkpoint's layer as a module, and everything that is done to modules."""

from __future__ import annotations

import copy
import io
import pickle
import re

import pytest
import torch
from torch import nn

import padmarlin
from padmarlin.nn import QuantLinear
from tests.checkpoint_files import (
    QUANTIZED_LAYERS,
    REAL,
    gptq_config,
    reference,
    tensors_of,
    write_checkpoint,
)
from tests.checkpoint_files import random_layer as checkpoint_layer
from tests.weights import random_weight

Q, DOWN = QUANTIZED_LAYERS[0], QUANTIZED_LAYERS[-1]


@pytest.fixture(autouse=True)
def _inference():
    with torch.no_grad():
        yield


def random_layer(k=100, n=70, *, bias=True, seed=0, **options) -> QuantLinear:
    made = random_weight(k, n, seed=seed, **options)
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed + 1)).to(made.packed.dtype)
    return QuantLinear(made.packed, values if bias else None)


def random_input(layer: QuantLinear, *shape: int, seed: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, layer.k, generator=generator).to(layer.dtype)


@pytest.mark.parametrize("checkpoint", REAL, ids=lambda path: path.name)
@pytest.mark.parametrize("name", QUANTIZED_LAYERS, ids=lambda name: name.rpartition(".")[2])
def test_layers_of_real_checkpoints(checkpoint, name):
    layer = QuantLinear.from_checkpoint(checkpoint, name, dtype=torch.float16)
    x = torch.from_numpy(reference(checkpoint, name, "x"))
    want = torch.from_numpy(reference(checkpoint, name, "y_nobias")).double()
    assert (layer.bias is not None) == ("bias" in tensors_of(checkpoint, name))
    if layer.bias is not None:
        want += torch.from_numpy(reference(checkpoint, name, "bias")).double()
    error = (layer(x).double() - want).norm() / want.norm()
    assert error < 1e-3, (checkpoint.name, name)  # one rounding to fp16: 2^-11


def test_it_is_gemm_bit_for_bit_whatever_the_leading_dimensions():
    layer = random_layer()
    for shape in ((), (0,), (1,), (5,), (2, 3), (2, 0, 3)):
        x = random_input(layer, *shape)
        got = layer(x)
        assert got.shape == (*shape, layer.n)
        assert torch.equal(got, padmarlin.gemm(x, layer.weight, layer.bias)), shape


def test_batch_invariant_is_passed_on():
    made = random_weight(640, 70)
    layer = QuantLinear(made.packed, batch_invariant=True)
    x = random_input(layer, 9)
    assert torch.equal(layer(x)[:1], layer(x[:1]))
    assert torch.equal(layer(x), padmarlin.gemm(x, made.packed, batch_invariant=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"symmetric": False}, {"act_order": True}, {"bits": 8, "dtype": torch.bfloat16}],
    ids=str,
)
def test_state_dict_round_trip(options):
    source = random_layer(k=300, **options)
    x = random_input(source, 4)
    target = random_layer(k=300, seed=3)  # symmetric and in order: its tables are others
    if source.dtype != target.dtype:
        target = random_layer(k=300, seed=3, dtype=source.dtype)
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(target(x), source(x))
    assert target.extra_repr() == source.extra_repr()


def test_load_state_dict_copies_into_the_memory_that_is_there():
    source, target = random_layer(seed=1), random_layer(seed=2)
    before = target.qweight.data_ptr()
    target.load_state_dict(source.state_dict())
    assert target.qweight.data_ptr() == before
    source.qweight.zero_()
    assert target.qweight.any()


def test_a_weight_that_shares_its_memory_with_a_layer_keeps_tables_that_belong_together():
    shared = random_weight(300, 70, group_size=128).packed  # 3 scale rows
    layer = QuantLinear(shared)
    before = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    layer.load_state_dict(random_layer(k=300, bias=False, group_size=64).state_dict())  # 5 of them
    for name, tensor in shared.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_bias_that_the_dtype_cannot_hold(tmp_path):
    tensors = {**checkpoint_layer(64, 64, bits=4, group_size=32), "bias": torch.full((64,), 1e5)}
    directory = write_checkpoint(tmp_path, {"layer": tensors}, gptq_config(group_size=32))
    with pytest.raises(ValueError, match="layer.bias.*100000 at column 0.*bfloat16"):
        QuantLinear.from_checkpoint(directory, "layer")
    layer = QuantLinear.from_checkpoint(directory, "layer", dtype=torch.bfloat16)
    assert torch.equal(layer.bias, torch.full((64,), 1e5).bfloat16())


def test_a_meta_layer_gets_its_tensors_from_a_state_dict():
    source = nn.ModuleDict({"a": random_layer(symmetric=False), "b": random_layer(seed=5)})
    for assign in (False, True):
        model = copy.deepcopy(source).to("meta")
        assert all(tensor.is_meta for tensor in model.buffers())
        model.load_state_dict(source.state_dict(), assign=assign)
        for name, layer in source.items():
            x = random_input(layer, 3)
            assert torch.equal(model[name](x), layer(x)), (name, assign)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("qweight"), "Missing key.*qweight"),
        (lambda state: state.pop("bias"), "Missing key.*bias"),
        (lambda state: state.pop("metadata"), "Missing key.*metadata"),
        (lambda state: state["slice_rows"].fill_(9), "slice_rows: got 9 .. 9"),
        (lambda state: state.update(bias=torch.zeros(3).half()), r"bias: got shape \(3,\)"),
    ],
)
def test_a_state_dict_that_does_not_fit(change, message):
    layer, state = random_layer(), dict(random_layer(seed=2).state_dict())
    x = random_input(layer, 3)
    want = layer(x)
    change(state)
    with pytest.raises(RuntimeError, match=message):
        layer.load_state_dict(state)
    assert torch.equal(layer(x), want)


def test_a_state_dict_of_other_sizes_or_dtype():
    layer = random_layer()
    for other in (random_layer(k=99), random_layer(n=69), random_layer(dtype=torch.bfloat16)):
        with pytest.raises(RuntimeError, match=re.escape("= (k, n, dtype)")):
            layer.load_state_dict(other.state_dict())


def test_extra_keys_do_not_matter_unless_strict():
    state = {**random_layer().state_dict(), "extra": torch.zeros(1)}
    with pytest.raises(RuntimeError, match="Unexpected key.*extra"):
        random_layer().load_state_dict(state)
    layer = random_layer(bias=False)
    result = layer.load_state_dict(random_layer().state_dict(), strict=False)
    assert result.missing_keys == [] and layer.bias is None


def test_the_dtype_cannot_change():
    model = nn.Sequential(random_layer(), nn.LayerNorm(70))
    x = random_input(model[0], 2)
    want = model[0](x)
    for convert in (model.float, model.bfloat16, lambda: model.to(torch.float64)):
        with pytest.raises(TypeError, match=re.escape("as it is packed; repack or load")):
            convert()
    model.half().to("cpu", torch.float16)
    assert torch.equal(model[0](x), want)


def test_to_empty_cannot_leave_undefined_tables():
    layer = random_layer(k=300, act_order=True)
    x = random_input(layer, 2)
    want = layer(x)
    with pytest.raises(ValueError, match="PaddedWeight: (columns|slice_rows)"):
        layer._apply(torch.zeros_like)  # as to_empty may find memory
    assert torch.equal(layer(x), want)


def test_copies_and_pickles():
    layer = random_layer(symmetric=False)
    x = random_input(layer, 3)
    for other in (copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
    assert copy.deepcopy(layer).qweight.data_ptr() != layer.qweight.data_ptr()


def test_module_listings():
    layer = random_layer(symmetric=False)
    assert list(layer.parameters()) == []
    assert {name for name, _ in layer.named_buffers()} == {
        "qweight", "scales", "zeros", "slice_rows", "bias"
    }  # fmt: skip
    assert "in_features=100, out_features=70, bias=True, bits=4" in repr(layer)
    assert "asymmetric" in repr(layer) and "gather" not in repr(layer)


def test_functional_call_replaces_buffers():
    layer, other = random_layer(seed=1), random_layer(seed=2)
    x = random_input(layer, 3)
    got = torch.func.functional_call(layer, dict(other.named_buffers()), (x,))
    assert torch.equal(got, other(x))


def test_inference_mode():
    with torch.inference_mode():
        layer = random_layer()
        x = random_input(layer, 3)
        got = layer(x)
    assert torch.equal(got, padmarlin.gemm(x, layer.weight, layer.bias))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_without_a_graph_break_for_any_number_of_rows(backend):
    torch._dynamo.reset()
    layer = random_layer(k=300, act_order=True)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=backend)
    with torch._dynamo.config.patch(error_on_recompile=False):
        for rows in (2, 3, 17):
            x = random_input(layer, rows)
            assert torch.equal(compiled(x), layer(x)), rows


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda x: x[:, :-1], ValueError, "x: got shape (2, 99), expected (..., 100)"),
        (lambda x: x.sum(), ValueError, "x: got shape (), expected (..., 100)"),
        (lambda x: x.float(), TypeError, "x: got torch.float32, expected torch.float16; x.to("),
        (lambda x: x.bfloat16(), TypeError, "or load the layer with dtype=torch.bfloat16"),
        (lambda x: x.to("meta"), ValueError, "x: got meta, expected cpu"),
        (lambda x: x.tolist(), TypeError, "x: got list, expected a Tensor"),
        (lambda x: x.to_sparse(), TypeError, "x: got a tensor of layout"),
    ],
)
def test_inputs_that_do_not_fit(make, kind, message):
    layer = random_layer()
    with pytest.raises(kind, match=re.escape(message)) as refused:
        layer(make(random_input(layer, 2)))
    assert str(refused.value).startswith("QuantLinear: ")


def test_no_autograd():
    layer = random_layer()
    x = random_input(layer, 2).requires_grad_()
    with torch.enable_grad(), pytest.raises(RuntimeError, match="requires grad.*inference"):
        layer(x)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((torch.zeros(3), None), TypeError, "weight: got Tensor, expected a PaddedWeight"),
        ((None, [1.0]), TypeError, "bias: got list"),
        ((None, torch.zeros(3).half()), ValueError, "bias: got shape (3,), expected (70,) = (n,)"),
        ((None, torch.zeros(70)), TypeError, "bias: got torch.float32, expected torch.float16"),
        ((None, torch.zeros(70, device="meta").half()), ValueError, "bias: got meta"),
    ],
)
def test_arguments_that_do_not_fit(arguments, kind, message):
    weight, bias = arguments
    with pytest.raises(kind, match=re.escape(message)):
        QuantLinear(random_weight(100, 70).packed if weight is None else weight, bias)


def test_from_checkpoint_converts_the_bias_with_the_weight():
    layer = QuantLinear.from_checkpoint(REAL[0], Q, dtype=torch.bfloat16)
    assert layer.bias is not None
    assert layer.dtype == layer.bias.dtype == torch.bfloat16
    want = torch.from_numpy(reference(REAL[0], Q, "bias")).bfloat16()
    assert torch.equal(layer.bias, want)


def test_from_checkpoint_of_a_layer_that_does_not_exist():
    with pytest.raises(ValueError, match="close matches: model.layers.0.mlp.down_proj"):
        QuantLinear.from_checkpoint(REAL[0], "model.layers.0.mlp.down_prj")
