# SPDX-License-Identifier: Apache-2.0
"""What only a device can show: graphs, streams, threads, several devices, no synchronisation."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import padmarlin
from padmarlin._extension import force_kernel
from tests.kernels import cuda_skip_reason
from tests.weights import random_weight

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(cuda_skip_reason() is not None, reason=str(cuda_skip_reason())),
]

ROOT = Path(__file__).resolve().parents[1]
K, N = 64 * 33, 300  # few columns, long K: split along K, so that the partials are in play


@pytest.fixture(scope="module")
def weight():
    return random_weight(K, N, group_size=64).packed.to("cuda")


def activations(m, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, K, generator=generator).half().cuda()


def dirty_memory():
    """Fills what the allocator will hand out next with NaN."""
    junk = [torch.full((1 << 20,), float("nan"), device="cuda") for _ in range(8)]
    torch.cuda.synchronize()
    del junk


def captured(a, weight, out):
    """A graph that computes `out` from `a`, captured after a warm-up on a side stream."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        padmarlin.gemm(a, weight, out=out)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        padmarlin.gemm(a, weight, out=out)
    return graph


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 3.0, 300.0])
@pytest.mark.parametrize("more", [{}, {"k_start": 40}, {"act_order": True}], ids=str)
def test_dequantize_is_exact(dtype, bits, symmetric, scale, more):
    for k, n in [(130, 72), (203, 75), (1, 1), (64, 128)]:
        made = random_weight(
            k, n, bits=bits, group_size=32, symmetric=symmetric, dtype=dtype, scale=scale, **more
        )
        dirty_memory()
        assert torch.equal(padmarlin.dequantize(made.packed.to("cuda")).cpu(), made.dense), (k, n)


@pytest.fixture
def scratch():
    """Every call through the scratch, as PADMARLIN_KERNEL=scratch."""
    force_kernel("scratch")
    yield
    force_kernel("auto")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("more", [{}, {"k_start": 40}, {"act_order": True}], ids=str)
def test_the_scratch_adds_in_fp32_and_rounds_once(scratch, dtype, bits, symmetric, more):
    for m, k, n, pitch in [(1, 130, 72, 0), (70, 203, 75, 0), (33, 203, 75, 5), (700, 64, 1, 0),
                           (9, 1, 65, 0), (300, 8192, 520, 8)]:  # fmt: skip
        made = random_weight(
            k, n, bits=bits, group_size=32, symmetric=symmetric, dtype=dtype, **more
        )
        generator = torch.Generator().manual_seed(m)
        a = torch.randn(m, k + pitch, generator=generator).to(dtype)[:, :k]
        bias = torch.randn(n, generator=generator).to(dtype)
        out = torch.full((m, n + 3), 7.0, dtype=dtype, device="cuda")
        there = torch.empty(m, k + pitch, dtype=dtype, device="cuda")[:, :k].copy_(a)
        dirty_memory()
        padmarlin.gemm(there, made.packed.to("cuda"), bias.cuda(), out=out[:, :n])
        assert (out[:, n:] == 7).all(), (m, k, n)
        exact = a.double() @ made.dense.double() + bias.double()
        rounded = exact.to(dtype).double()  # what one rounding leaves, but for the fp32 sums
        error = (out[:, :n].cpu().double() - exact).norm()
        assert error <= 1.05 * (rounded - exact).norm() + 1e-6 * exact.norm(), (
            m,
            k,
            n,
            float(error),
        )


@pytest.mark.parametrize("dtype, name", [(torch.float16, "fp16"), (torch.bfloat16, "bf16")])
def test_the_scratch_does_not_add_in_16_bits_whatever_torch_allows(scratch, dtype, name):
    """Sums of parts of K are integers of some 4000: rounding one to 16 bits would show."""
    made = random_weight(65536, 64, group_size=-1, scale=1.0, integers=True, dtype=dtype)
    weight = made.packed.to("cuda")
    a = torch.randint(-30, 31, (64, 65536), generator=torch.Generator().manual_seed(1)).to(dtype)
    exact = (a.double() @ made.dense.double()).to(dtype)
    flag = f"allow_{name}_reduced_precision_reduction"
    before = getattr(torch.backends.cuda.matmul, flag)
    try:
        for allowed in (True, False):
            setattr(torch.backends.cuda.matmul, flag, allowed)
            assert torch.equal(padmarlin.gemm(a.cuda(), weight).cpu(), exact), allowed
    finally:
        setattr(torch.backends.cuda.matmul, flag, before)


def test_the_scratch_under_settings_that_forbid_it(weight, scratch):
    a = activations(70, 1)
    torch.backends.cuda.matmul.allow_fp16_accumulation = True
    try:
        with pytest.raises(RuntimeError, match="torch refuses a product of float16"):
            padmarlin.gemm(a, weight)
    finally:
        torch.backends.cuda.matmul.allow_fp16_accumulation = False
    assert padmarlin.gemm(a, weight).isfinite().all()


def test_the_scratch_in_graphs_and_on_streams(weight, scratch):
    a, out = activations(70, 1), torch.empty(70, N, dtype=torch.float16, device="cuda")
    graph = captured(a, weight, out)
    streams = [torch.cuda.Stream() for _ in range(3)]
    for seed in range(20):
        a.copy_(activations(70, seed))
        want = padmarlin.gemm(a, weight)
        dirty_memory()
        out.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, want), seed
        got = []
        for stream in streams:
            with torch.cuda.stream(stream):
                got.append(padmarlin.gemm(a, weight))
        torch.cuda.synchronize()
        assert all(torch.equal(one, want) for one in got), seed


def test_the_scratch_never_waits(weight, scratch):
    a = activations(70, 1)
    padmarlin.gemm(a, weight)
    torch.cuda.set_sync_debug_mode("error")
    try:
        padmarlin.gemm(a, weight)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_scratch_stays_within_its_memory(scratch):
    made = random_weight(4096, 20_000, group_size=128).packed.to("cuda")
    a = torch.randn(9000, 4096, device="cuda").half()
    out = torch.empty(9000, 20_000, dtype=torch.float16, device="cuda")
    padmarlin.gemm(a[:64], made, out=out[:64])  # cuBLAS's own workspace
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    padmarlin.gemm(a, made, out=out)
    assert torch.cuda.max_memory_allocated() - before <= (256 + 64 + 1) << 20
    rows = torch.tensor([0, 4000, 8999], device="cuda")
    want = a[rows].float() @ padmarlin.dequantize(made).float()
    assert torch.allclose(out[rows].float(), want, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(K,), (2, 35, K), (1, 3, 1, 5, K), (2, 0, K)])
def test_activations_of_any_dimension(weight, shape):
    a = torch.randn(shape, generator=torch.Generator().manual_seed(1)).half().cuda()
    want = padmarlin.gemm(a.reshape(-1, K), weight).view(*shape[:-1], N)
    assert torch.equal(padmarlin.gemm(a, weight), want)
    pitched = torch.empty(*shape[:-1], K + 24, dtype=a.dtype, device="cuda")[..., :K].copy_(a)
    assert torch.equal(padmarlin.gemm(pitched, weight), want)
    out = torch.empty_like(want)
    assert torch.equal(padmarlin.gemm(a, weight, out=out), want)


@pytest.mark.parametrize("m", [1, 16, 33, 128])
def test_a_graph_replays_the_same_bits_over_dirty_memory(weight, m):
    a, out = activations(m, 1), torch.empty(m, N, dtype=torch.float16, device="cuda")
    graph = captured(a, weight, out)
    for seed in range(20):
        a.copy_(activations(m, seed))
        want = padmarlin.gemm(a, weight)
        dirty_memory()
        out.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, want), seed


@pytest.mark.parametrize("m", [8, 70])  # on sm_90: either family
def test_two_graphs_of_one_stream_replay_at_once_on_two(weight, m):
    inputs = [activations(m, seed) for seed in (1, 2)]
    wants = [padmarlin.gemm(a, weight) for a in inputs]
    outs = [torch.empty_like(want) for want in wants]
    graphs = [captured(a, weight, out) for a, out in zip(inputs, outs, strict=True)]
    streams = [torch.cuda.Stream() for _ in graphs]
    wrong = torch.zeros(len(graphs), dtype=torch.int64, device="cuda")
    torch.cuda.synchronize()
    for _ in range(1000):  # without waiting for each other: each stream compares its own results
        for i, (graph, stream) in enumerate(zip(graphs, streams, strict=True)):
            with torch.cuda.stream(stream):
                outs[i].fill_(float("nan"))
                graph.replay()
                wrong[i] += (outs[i] != wants[i]).any()
    torch.cuda.synchronize()
    assert wrong.tolist() == [0, 0]


@pytest.mark.parametrize("m", [8, 70])
def test_branches_of_one_graph_run_at_once(weight, m):
    inputs = [activations(m, seed) for seed in (1, 2)]
    wants = [padmarlin.gemm(a, weight) for a in inputs]
    outs = [torch.empty_like(want) for want in wants]
    torch.cuda.synchronize()
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph):
        main = torch.cuda.current_stream()
        side.wait_stream(main)
        for _ in range(20):
            padmarlin.gemm(inputs[0], weight, out=outs[0])
            with torch.cuda.stream(side):
                padmarlin.gemm(inputs[1], weight, out=outs[1])
        main.wait_stream(side)
    for _ in range(50):
        for out in outs:
            out.fill_(float("nan"))
        graph.replay()
        for out, want in zip(outs, wants, strict=True):
            assert torch.equal(out, want)


# Layers that read what the one before wrote, eager and captured, after copies into the input: with
# PADMARLIN_PDL=1 they overlap, and must not read early. Prints the bits' checksum.
CHAIN = """
import torch, padmarlin
from tests.weights import random_weight
weights = [random_weight(704, 704, group_size=64, seed=seed, act_order=seed == 2).packed.to("cuda")
           for seed in range(4)]
a = torch.zeros(M, 704, dtype=torch.float16, device="cuda")
def run():
    x = a
    for _ in range(5):
        for weight in weights:
            x = padmarlin.gemm(x, weight)
            x = x / x.abs().amax().clamp(min=1e-3) if weight is weights[3] else x
    return x
run()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    out = run()
for seed in range(20):
    generator = torch.Generator().manual_seed(seed)
    a.copy_(torch.randn(M, 704, generator=generator).half())
    eager = run()
    graph.replay()
    assert torch.equal(out, eager), seed
    assert eager.isfinite().all() and eager.any(), seed
    print(eager.view(torch.int16).long().sum().item())
"""


@pytest.mark.parametrize("m", [1, 16, 70, 300])
def test_kernels_that_overlap_give_the_bits_of_those_that_do_not(m):
    printed = []
    for overlaps in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", f"M = {m}" + CHAIN],
            capture_output=True, text=True, cwd=ROOT,
            env={**os.environ, "PADMARLIN_PDL": overlaps},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0] == printed[1]


@pytest.mark.parametrize("m", [2, 70])  # of either family
@pytest.mark.parametrize("offset", [0, 1])  # 1: m = 70 takes the aligning pass as well
def test_the_first_call_of_a_process_may_be_captured(m, offset):
    """Which loads the kernels' code, allocates counters and looks up the driver's encoder."""
    code = f"""
import torch, padmarlin
from tests.weights import random_weight
weight = random_weight({K}, {N}, group_size=64).packed.to("cuda")
a = torch.ones({m}, {K} + {offset}, dtype=torch.float16, device="cuda")[:, {offset}:]
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    out = padmarlin.gemm(a, weight)
for _ in range(3):
    graph.replay()
assert torch.equal(out, padmarlin.gemm(a, weight))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_graphs_that_are_gone_leave_no_memory_behind(weight):
    a, out = activations(4, 1), torch.empty(4, N, dtype=torch.float16, device="cuda")

    def free_bytes():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]

    for _ in range(80):
        captured(a, weight, out)
    before = free_bytes()
    for _ in range(400):
        captured(a, weight, out)
    assert before - free_bytes() < 1 << 20


def test_many_streams_and_threads_at_once(weight):
    inputs = [activations(5, seed) for seed in range(8)]
    wants = [padmarlin.gemm(a, weight) for a in inputs]
    torch.cuda.synchronize()
    wrong = []

    def work(index):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(100):
                got = padmarlin.gemm(inputs[index], weight)
                if not torch.equal(got, wants[index]):
                    wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_call_waits_for_the_device(weight):
    a, bias = activations(4, 1), torch.zeros(N, dtype=torch.float16, device="cuda")
    padmarlin.gemm(a, weight, bias)
    torch.cuda.set_sync_debug_mode("error")
    try:
        padmarlin.gemm(a, weight, bias)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_torch_compile(weight, mode):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda a: torch.relu(padmarlin.gemm(a, weight)), fullgraph=True, mode=mode
    )
    for m in (1, 8):
        a = activations(m, m)
        want = torch.relu(padmarlin.gemm(a, weight))
        for _ in range(3):
            assert torch.equal(compiled(a), want), m


def test_tensors_of_another_device_than_the_current_one():
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device")
    weight = random_weight(K, N, group_size=64).packed.to("cuda:1")
    a = activations(3, 1)
    want = padmarlin.gemm(a, weight.to("cuda:0"))
    assert torch.equal(padmarlin.gemm(a.to("cuda:1"), weight).to("cuda:0"), want)


def test_offsets_beyond_2_to_the_31():
    made = random_weight(64, 64)
    rows = 2**31 // 64 + 3
    if torch.cuda.mem_get_info()[0] < 3 * rows * 64 * 2:
        pytest.skip("too little device memory")
    a = torch.zeros(rows, 64, dtype=torch.float16, device="cuda")
    a[-2:] = torch.eye(64, dtype=torch.float16)[:2].cuda()
    got = padmarlin.gemm(a, made.packed.to("cuda"))
    assert torch.equal(got[-2:].cpu(), made.dense[:2])
    assert not got[:-2].any()
