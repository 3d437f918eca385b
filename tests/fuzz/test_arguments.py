# SPDX-License-Identifier: Apache-2.0
"""Valid calls with up to two arguments replaced. What is accepted must be right all the same.

Seeds: Hypothesis, derandomised; those of tensors are part of the case.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import padmarlin
from padmarlin import PaddedWeight, Shard
from tests import oracle
from tests.fuzz import CASES
from tests.fuzz.values import Change, changed, changes
from tests.fuzz.verdict import answer_or_refusal, bounded_memory

# torch warns of its own prototypes, nested and quantized tensors.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SECONDS = 600  # for all cases of a target; a hang ends the process with a traceback

Arguments = dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def limits() -> Iterator[None]:
    with bounded_memory():
        yield


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@dataclass(frozen=True)
class Target:
    """A function to be fuzzed."""

    valid: Callable[[np.random.Generator], Arguments]  # arguments it must accept
    call: Callable[..., Any]
    check: Callable[[Any, Arguments], None]  # of an answer, for the arguments it was given
    may_refuse: bool = False  # even what `valid` makes


# ---- plan


def plan_arguments(rng: np.random.Generator) -> Arguments:
    tp = int(rng.integers(1, 9))
    k, group_size = tp * int(rng.integers(1, 100)), int(rng.choice([-1, 16, 24, 64, 100, 128]))
    return {
        "k": k,
        "n": tp * int(rng.integers(1, 100)),
        "bits": int(rng.choice([4, 8])),
        "group_size": group_size,
        "act_order": bool(rng.integers(2)),
        "g_idx": torch.from_numpy(rng.permutation(k) // (k if group_size == -1 else group_size)),
        "tp": tp,
        "axis": str(rng.choice(["k", "n"])),
    }


def check_plan(plan: padmarlin.Plan, arguments: Arguments) -> None:
    assert len(plan.ranks) == plan.tp == int(arguments["tp"])
    cut, whole = ("k", "n") if plan.axis == "k" else ("n", "k")
    size, other = int(arguments[cut]), int(arguments[whole])
    assert sum(getattr(rank, cut) for rank in plan.ranks) == size
    for rank in plan.ranks:
        assert getattr(rank, whole) == other
        assert rank.padded_k % 64 == rank.padded_n % 64 == 0
        assert rank.front_pad + rank.k <= rank.padded_k
        assert 0 <= rank.front_pad < 64 and 0 <= rank.padded_n - rank.n < 64
        assert rank.strict_marlin == (not rank.reasons)


# ---- repack_gptq


def gptq_arguments(rng: np.random.Generator) -> Arguments:
    k, group_size = int(rng.integers(1, 200)), int(rng.choice([-1, 16, 24, 64, 100, 128]))
    layer = oracle.random_gptq(
        rng,
        k,
        int(rng.integers(1, 80)),
        bits=int(rng.choice([4, 8])),
        group_size=group_size,
        symmetric=bool(rng.integers(2)),
        act_order=bool(rng.integers(2)),
        checkpoint_format=str(rng.choice(["gptq", "gptq_v2"])),
    )
    if rng.integers(2):
        start = int(rng.integers(k))
        layer = layer.rows(start, int(rng.integers(start, k)) + 1)
    return {"g_idx": None, **layer.arguments(), "sym": None, "shard": None, "dtype": None}


def check_gptq(weight: PaddedWeight, arguments: Arguments) -> None:
    oracle.assert_same(padmarlin.dequantize(weight), gptq_oracle(arguments))


def gptq_oracle(a: Arguments) -> Tensor:
    """What the arguments of repack_gptq say, read independently."""
    tables = {name: None if a[name] is None else a[name].detach() for name in ("qzeros", "g_idx")}
    arrays = {name: None if table is None else table.numpy() for name, table in tables.items()}
    scales, bits, size, k_start = a["scales"], a["bits"], int(a["group_size"]), int(a["k_start"])
    k = a["qweight"].shape[0] * 32 // bits if arrays["g_idx"] is None else len(arrays["g_idx"])
    k = k if a["k"] is None else int(a["k"])
    first_group = 0
    if size != -1:
        groups = (np.arange(k) + k_start) // size
        if arrays["g_idx"] is None or np.array_equal(groups, arrays["g_idx"]):
            arrays["g_idx"] = None  # in order: the table may begin with the rank's first group
            if len(scales) == groups[-1] - groups[0] + 1:
                first_group = int(groups[0])
    layer = oracle.Gptq(
        qweight=a["qweight"].detach().numpy(),
        scales=scales.detach().float().numpy(),
        **arrays,
        k=k,
        bits=bits,
        group_size=size,
        checkpoint_format=a["checkpoint_format"],
        k_start=k_start,
        first_group=first_group,
    )
    own = torch.float16 if scales.dtype == torch.float32 else scales.dtype
    whole = layer.dequantized(own if a["dtype"] is None else a["dtype"])
    shard = a["shard"]
    if shard is None:
        return whole
    return whole.narrow("kn".index(shard.axis), *_start_and_length(shard, whole))


def _start_and_length(shard: Shard, whole: Tensor) -> tuple[int, int]:
    length = whole.shape["kn".index(shard.axis)] // shard.world_size
    return shard.rank * length, length


# ---- gemm


def random_padded_weight(rng: np.random.Generator) -> PaddedWeight:
    layer = oracle.random_gptq(
        rng,
        int(rng.integers(1, 150)),
        int(rng.integers(1, 80)),
        bits=int(rng.choice([4, 8])),
        group_size=32,
        symmetric=bool(rng.integers(2)),
        act_order=bool(rng.integers(2)),
    )
    dtype = torch.float16 if rng.integers(2) else torch.bfloat16
    return padmarlin.repack_gptq(**layer.arguments(), dtype=dtype)


def gemm_arguments(rng: np.random.Generator) -> Arguments:
    weight, m = random_padded_weight(rng), int(rng.integers(0, 9))
    a = torch.from_numpy(rng.standard_normal((m, weight.k)))
    return {
        "a": a.to(weight.dtype),
        "weight": weight,
        "bias": torch.from_numpy(rng.standard_normal(weight.n)).to(weight.dtype),
        "out": torch.full((m, weight.n), float("nan"), dtype=weight.dtype),
        "batch_invariant": bool(rng.integers(2)),
    }


def check_gemm(y: Tensor, arguments: Arguments) -> None:
    a, weight, bias = (arguments[name] for name in ("a", "weight", "bias"))
    assert y.dtype == a.dtype and y.shape == (*a.shape[:-1], weight.n)
    if a.is_meta or not a.isfinite().all():
        return
    expected = a.double() @ padmarlin.dequantize(weight).double()
    expected += 0 if bias is None else bias.double()
    limit = torch.finfo(y.dtype).max
    near = expected.clamp(-limit, limit)
    wrong = (y.double().clamp(-limit, limit) - near).abs() > 0.01 + 0.02 * near.abs()
    wrong &= near.isfinite()
    assert not wrong.any(), f"wrong at {tuple(wrong.nonzero()[0].tolist())} of {tuple(y.shape)}"


# ---- PaddedWeight


def check_weight(weight: PaddedWeight, _: Arguments) -> None:
    """gemm and dequantize read a weight alike, whatever its tables say."""
    again = PaddedWeight.from_state_dict(weight.state_dict())
    assert repr(again) == repr(weight) and again.overhead >= 0
    if weight.device.type == "meta":
        return
    dense = padmarlin.dequantize(weight)
    assert dense.shape == (weight.k, weight.n)
    with torch.no_grad():
        last = torch.eye(weight.k, dtype=weight.dtype)[-1:]
        row = padmarlin.gemm(last, weight)[0]
    if dense.isfinite().all():
        oracle.assert_same(row, dense[-1])


def constructor_arguments(rng: np.random.Generator) -> Arguments:
    weight = random_padded_weight(rng)
    return {field.name: getattr(weight, field.name) for field in fields(weight)}


def state(rng: np.random.Generator) -> Arguments:
    return random_padded_weight(rng).state_dict()


def from_state(**state: Any) -> PaddedWeight:
    return PaddedWeight.from_state_dict(state)


def metadata_changed(rng: np.random.Generator) -> Arguments:
    tensors = random_padded_weight(rng).state_dict()
    place = int(rng.integers(len(tensors["metadata"])))
    values = [-1, 0, 1, 2, 3, 63, 64, 65, 128, 2**31 - 1, 2**31, 2**62, -(2**63)]
    tensors["metadata"][place] = values[int(rng.integers(len(values)))]
    return tensors


TARGETS = {
    "plan": Target(plan_arguments, padmarlin.plan, check_plan),
    "repack_gptq": Target(gptq_arguments, padmarlin.repack_gptq, check_gptq),
    "gemm": Target(gemm_arguments, padmarlin.gemm, check_gemm),
    "PaddedWeight": Target(constructor_arguments, PaddedWeight, check_weight),
    "from_state_dict": Target(state, from_state, check_weight),
    "metadata": Target(metadata_changed, from_state, check_weight, may_refuse=True),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_answer_is_right_or_a_refusal(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=CASES, suppress_health_check=list(HealthCheck))
    @given(
        seed=st.integers(0, 2**32 - 1),
        changes=changes(list(target.valid(np.random.default_rng(0)))),
    )
    def case(seed: int, changes: list[Change]) -> None:
        arguments = changed(target.valid(np.random.default_rng(seed)), changes)
        answer = answer_or_refusal(lambda: target.call(**arguments))
        if answer is not None:
            target.check(answer, arguments)
        else:
            assert changes or target.may_refuse, "valid arguments were refused"

    case()
