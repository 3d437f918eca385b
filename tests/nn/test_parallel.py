# SPDX-License-Identifier: Apache-2.0
"""Column- and row-parallel layers on gloo ranks against the same layer on one.

Every rank of a run checks everything, so that two runs, of 2 and of 4 ranks, suffice: starting
processes is what takes time.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import padmarlin
from padmarlin.nn import (
    ColumnParallelQuantLinear,
    MergedColumnParallelQuantLinear,
    QuantLinear,
    RowParallelQuantLinear,
)
from padmarlin.shards import repack_checkpoint
from tests.checkpoint_files import (
    AWQ,
    COMPRESSED_TENSORS,
    GPTQ,
    gptq_config,
    random_layer,
    write_checkpoint,
)
from tests.nn.ranks import on_ranks
from tests.weights import random_weight

LAYER = "model.layers.0."
Q, K, V = (f"{LAYER}self_attn.{name}_proj" for name in "qkv")
GATE, UP, DOWN = (f"{LAYER}mlp.{name}_proj" for name in ("gate", "up", "down"))
REAL = [*GPTQ, AWQ, COMPRESSED_TENSORS]

HALF_ULP = 2.0**-11


def activations(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half()


def whole(checkpoint: Path, name: str) -> QuantLinear:
    return QuantLinear.from_checkpoint(checkpoint, name, dtype=torch.float16)


def check_close(got: Tensor, want: Tensor, additions: int, what: object) -> None:
    """Each rank's part is rounded to fp16, and so is each partial sum of the reduction."""
    assert got.shape == want.shape, what
    bound = (additions + 1) * HALF_ULP * (want.abs() + want.abs().max()).double()
    excess = (got.double() - want.double()).abs() - bound
    worst = int(excess.argmax())
    assert excess.flatten()[worst] <= 0, (what, worst, float(excess.flatten()[worst]))


# ---- what each rank does


def columns(rank: int) -> None:
    size = dist.get_world_size()
    for checkpoint in REAL:
        for name in (Q, UP):
            layer = whole(checkpoint, name)
            x = activations(3, layer.in_features)
            want = layer(x)
            part = want.chunk(size, -1)[rank]
            arguments = (checkpoint, name)
            own = ColumnParallelQuantLinear.from_checkpoint(*arguments, dtype=torch.float16)
            assert torch.equal(own(x), part), (rank, arguments)
            gathering = ColumnParallelQuantLinear.from_checkpoint(
                *arguments, dtype=torch.float16, gather_output=True
            )
            assert torch.equal(gathering(x), want), (rank, arguments)
            assert torch.equal(gathering(x[0]), want[0]), (rank, arguments)
            assert torch.equal(gathering(x[None, :0]), want[None, :0]), (rank, arguments)
            assert (own.out_features, own.n) == (layer.n, layer.n // size)


def rows(rank: int) -> None:
    size = dist.get_world_size()
    for checkpoint in REAL:
        for name in (DOWN, Q):  # q has a bias
            layer = whole(checkpoint, name)
            x = activations(2, 3, layer.in_features)
            want = layer(x)
            own_x = x.chunk(size, -1)[rank]
            what = (rank, checkpoint.name, name)

            def made(checkpoint: Path = checkpoint, name: str = name, **options: bool):
                return RowParallelQuantLinear.from_checkpoint(
                    checkpoint, name, dtype=torch.float16, **options
                )

            reducing = made()
            check_close(reducing(own_x), want, size, what)
            check_close(made(input_is_parallel=False)(x), want, size, what)
            partial = made(reduce_results=False)(own_x)
            parts = [torch.empty_like(partial) for _ in range(size)]
            dist.all_gather(parts, partial)
            check_close(sum(parts), want, size, what)
            assert (reducing.in_features, reducing.k) == (layer.k, layer.k // size)


def bias_is_added_once(rank: int) -> None:
    """x = 0: what is left is the bias, exactly."""
    size = dist.get_world_size()
    weight = random_weight(96, 70).packed
    bias = activations(70)
    x = torch.zeros(4, 96).half()
    assert torch.equal(RowParallelQuantLinear(weight, bias)(x), bias.expand(4, -1))
    partial = RowParallelQuantLinear(weight, bias, reduce_results=False)(x)
    assert torch.equal(partial, (bias if rank == 0 else torch.zeros(70).half()).expand(4, -1))
    merged = MergedColumnParallelQuantLinear([weight, weight], [bias, None], gather_output=True)
    assert torch.equal(merged(x), torch.cat([bias] * size + [bias * 0] * size).expand(4, -1))


def merged_columns(rank: int) -> None:
    size = dist.get_world_size()
    for checkpoint in REAL:
        layers = [whole(checkpoint, name) for name in (Q, K, V)]
        x = activations(3, layers[0].in_features)
        wants = [layer(x) for layer in layers]
        for replicas in ((1, 1, 1), (1, 2, 2), (1, size, size)):
            own = [
                want.chunk(size // copies, -1)[rank // copies]
                for want, copies in zip(wants, replicas, strict=True)
            ]
            for gather in (False, True):
                layer = MergedColumnParallelQuantLinear.from_checkpoint(
                    checkpoint,
                    [Q, K, V],
                    dtype=torch.float16,
                    replicas=replicas,
                    gather_output=gather,
                )
                want = torch.cat(wants if gather else own, -1)
                assert torch.equal(layer(x), want), (rank, checkpoint.name, replicas, gather)
                assert layer.split_sizes == [part.shape[-1] for part in own]
                assert layer.out_features == sum(layer.n for layer in layers)


def subgroups(rank: int) -> None:
    """Pairs of ranks, each with its own layer: the rank inside the group decides."""
    size = dist.get_world_size()
    checkpoint = GPTQ[0]
    pairs = [dist.new_group([first, first + 1]) for first in range(0, size, 2)]
    group = pairs[rank // 2]
    x, layer = activations(3, 256, seed=rank // 2), whole(checkpoint, Q)
    column = ColumnParallelQuantLinear.from_checkpoint(
        checkpoint, Q, process_group=group, gather_output=True, dtype=torch.float16
    )
    assert torch.equal(column(x), layer(x))
    row = RowParallelQuantLinear.from_checkpoint(
        checkpoint, Q, process_group=group, input_is_parallel=False, dtype=torch.float16
    )
    assert (row.rank, row.world_size) == (rank % 2, 2)
    check_close(row(x), layer(x), 2, rank)
    zeros = torch.zeros(1, 256).half()
    assert layer.bias is not None
    assert torch.equal(row(zeros)[0], layer.bias)

    copied = copy.deepcopy(row)
    assert copied.process_group is row.process_group
    assert torch.equal(copied(x), row(x))
    with pytest.raises(TypeError, match="process_group: got a layer to pickle"):
        pickle.dumps(row)
    if size > 2:
        other = pairs[1 - rank // 2]
        with pytest.raises(ValueError, match="process_group: got another's group"):
            ColumnParallelQuantLinear.from_checkpoint(checkpoint, Q, process_group=other)


def as_modules(rank: int) -> None:
    layer = RowParallelQuantLinear.from_checkpoint(GPTQ[0], Q)
    x = activations(3, 256).chunk(dist.get_world_size(), -1)[rank]
    want = layer(x)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), want)
    other = RowParallelQuantLinear.from_checkpoint(GPTQ[0], K.replace("k_proj", "o_proj"))
    with pytest.raises(RuntimeError, match="Missing key|Unexpected key"):
        layer.load_state_dict(other.state_dict())  # o has no bias
    again = copy.deepcopy(layer).to("meta")
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x), want)
    with torch.inference_mode():
        assert torch.equal(layer(x), want)
    assert f"rank {rank} of {dist.get_world_size()}" in repr(layer)


def compiled(rank: int) -> None:
    for group in (None, dist.new_group([0, 1])):
        gather = ColumnParallelQuantLinear.from_checkpoint(
            GPTQ[0], Q, gather_output=True, process_group=group
        )
        reduce = RowParallelQuantLinear.from_checkpoint(
            GPTQ[0], Q, input_is_parallel=False, process_group=group
        )
        both = torch.nn.Sequential(gather, reduce)
        torch._dynamo.reset()
        function = torch.compile(both, fullgraph=True, dynamic=True, backend="aot_eager")
        for m in (2, 3, 7):
            x = activations(m, 256, seed=m) / 16
            assert torch.equal(function(x), both(x)), (rank, group, m)


def sizes_that_do_not_divide(rank: int, directory: Path) -> None:
    size = dist.get_world_size()
    for cls, axis in ((ColumnParallelQuantLinear, "n"), (RowParallelQuantLinear, "k")):
        with pytest.raises(ValueError, match=f"a multiple of world_size = {size}") as refused:
            cls.from_checkpoint(directory, "layer")
        assert f"along axis '{axis}'" in str(refused.value)


def everything(rank: int, directory: Path) -> None:
    columns(rank)
    rows(rank)
    bias_is_added_once(rank)
    merged_columns(rank)
    subgroups(rank)
    as_modules(rank)
    sizes_that_do_not_divide(rank, directory)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_against_one(size, tmp_path):
    layers = {"layer": random_layer(91, 71, bits=4, group_size=32)}
    on_ranks(size, everything, write_checkpoint(tmp_path, layers, gptq_config(group_size=32)))


def test_compiled_with_its_collectives():
    on_ranks(2, compiled)


# ---- one process that takes the place of each rank


def test_layers_of_a_repacked_directory(tmp_path, monkeypatch):
    """What ``padmarlin repack`` wrote: the same layers, biases included, without their sums."""
    repacked = tmp_path / "repacked"
    repack_checkpoint(GPTQ[0], repacked, tp=2)
    x = activations(3, 256)
    for rank in range(2):
        for module in ("parallel", "merged"):
            place = f"padmarlin.nn.{module}.rank_and_size"
            monkeypatch.setattr(place, lambda *_, rank=rank: (rank, 2))
        for directory in (GPTQ[0], repacked):
            qkv = MergedColumnParallelQuantLinear.from_checkpoint(directory, [Q, K, V])
            down = RowParallelQuantLinear.from_checkpoint(directory, DOWN, reduce_results=False)
            if directory == GPTQ[0]:
                want = qkv(x), down(activations(3, 192))
        assert qkv.bias is not None
        assert torch.equal(qkv(x), want[0]), rank
        assert torch.equal(down(activations(3, 192)), want[1]), rank


# ---- one rank: no process group


@pytest.fixture(autouse=True)
def _inference():
    with torch.no_grad():
        yield


def test_without_a_process_group_there_is_one_rank():
    layer = whole(GPTQ[0], Q)
    x = activations(3, 256)
    for cls in (ColumnParallelQuantLinear, RowParallelQuantLinear):
        one = cls.from_checkpoint(GPTQ[0], Q)
        assert (one.rank, one.world_size) == (0, 1)
        assert torch.equal(one(x), layer(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"process_group": "tp"}, "process_group: got str, expected a torch.distributed"),
        ({"gather_output": 1}, "gather_output: got 1, expected a bool"),
    ],
)
def test_arguments_of_the_wrong_kind(options, message):
    with pytest.raises(TypeError, match=message):
        ColumnParallelQuantLinear(random_weight(64, 64).packed, **options)
    if "gather_output" in options:
        with pytest.raises(TypeError, match="reduce_results: got 1"):
            RowParallelQuantLinear(random_weight(64, 64).packed, reduce_results=1)


def test_the_input_of_a_row_parallel_layer_is_checked_before_it_is_cut():
    layer = RowParallelQuantLinear(random_weight(64, 64).packed, input_is_parallel=False)
    with pytest.raises(ValueError, match="expected \\(..., 64\\)"):
        layer(activations(2, 65))
    assert torch.equal(layer(activations(2, 64)), padmarlin.gemm(activations(2, 64), layer.weight))


# ---- merged columns


def test_matrices_that_differ_are_not_merged():
    first = random_weight(128, 64, act_order=True, group_size=32).packed
    cases = {
        "another g_idx": random_weight(128, 64, act_order=True, group_size=32, seed=1).packed,
        "bits = 8": random_weight(128, 64, bits=8, group_size=32).packed,
        "k = 192": random_weight(192, 64, group_size=32).packed,
        "group_size = 64": random_weight(128, 64, group_size=64).packed,
        "dtype = torch.bfloat16": random_weight(128, 64, dtype=torch.bfloat16).packed,
    }
    for got, other in cases.items():
        if "dtype" in got:
            other = random_weight(128, 64, group_size=32, dtype=torch.bfloat16).packed
        with pytest.raises(ValueError, match=f"up: got {got}.*a ColumnParallelQuantLinear for"):
            MergedColumnParallelQuantLinear([first, other], names=["gate", "up"])


@pytest.mark.parametrize("symmetric", [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("widths", [(70, 3, 64), (64, 128, 3)], ids=["ragged", "tiles"])
def test_merged_weights_are_the_weights_side_by_side(widths, symmetric, bits):
    """Of any n, with and without zero points, with scales that dequantize in different ways."""
    made = [
        random_weight(100, n, bits=bits, group_size=32, symmetric=sym, scale=scale, seed=n)
        for n, sym, scale in zip(widths, (*symmetric, True), (0.01, 0.3, 2.0), strict=True)
    ]
    layer = MergedColumnParallelQuantLinear([part.packed for part in made])
    want = torch.cat([part.dense for part in made], 1)
    assert torch.equal(padmarlin.dequantize(layer.weight), want)
    assert layer.split_sizes == list(widths)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"weights": []}, TypeError, "weights: got list"),
        ({"biases": [None]}, ValueError, "biases: got 'list', expected 2"),
        ({"biases": [torch.zeros(3).half(), None]}, ValueError, "bias of weights\\[0\\]: got"),
        ({"replicas": [1]}, ValueError, "replicas: got \\[1\\], expected 2 ints"),
        ({"replicas": [1, 2]}, ValueError, "replicas: got 2, expected divisors of the 1 ranks"),
        ({"replicas": [1, 0]}, ValueError, "replicas: got 0"),
    ],
)
def test_arguments_of_merged_layers(arguments, kind, message):
    weight = random_weight(64, 64).packed
    with pytest.raises(kind, match=message):
        MergedColumnParallelQuantLinear(**{"weights": [weight, weight], **arguments})


def test_names_must_be_several():
    with pytest.raises(TypeError, match="names: got 'model.layers.0.self_attn.q_proj'"):
        MergedColumnParallelQuantLinear.from_checkpoint(GPTQ[0], Q)
