# SPDX-License-Identifier: Apache-2.0
"""The CUDA device: graphs of calls, timed with events."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.rates import Rates
from benchmarks.rows import Machine

# Half a millisecond at 2 GHz: longer than the host takes to launch a graph. While the device
# waits, everything is queued, so that no launch of the host falls between the two events.
LEAD_IN_CYCLES = 1_000_000


class CudaReplay:
    def __init__(self, calls: Sequence[Callable[[], Tensor]], keep: int) -> None:
        # What a first call does besides: compile, allocate, tune. Not on the capturing stream,
        # whose memory belongs to the graph.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for call in calls[:keep]:
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        self.outputs: list[Tensor] = []
        with torch.cuda.graph(self.graph):
            for index, call in enumerate(calls):
                output = call()
                if index < keep:
                    self.outputs.append(output)
        self.start = torch.cuda.Event(enable_timing=True)
        self.end = torch.cuda.Event(enable_timing=True)

    def time(self) -> float:
        torch.cuda._sleep(LEAD_IN_CYCLES)
        self.start.record()
        self.graph.replay()
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) * 1000


class CudaDevice:
    name = "cuda"

    def __init__(self) -> None:
        self.properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        self.l2_bytes: int = self.properties.L2_cache_size

    def capture(self, calls: Sequence[Callable[[], Tensor]], keep: int) -> CudaReplay:
        return CudaReplay(calls, keep)

    def works(self) -> bool:
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return False
        return True

    def machine(self, rates: Rates, facts: dict[str, Any]) -> Machine:
        """`facts` are those of padmarlin.cli.env.collect()."""
        now = datetime.datetime.now(datetime.timezone.utc)
        return Machine(
            date=now.isoformat(timespec="seconds"),
            gpu=self.properties.name,
            driver=facts["driver"],
            torch=torch.__version__,
            commit=facts["commit"],
            read_gb_s=rates.bytes_per_second / 1e9,
            matrix_tflop_s=rates.flops / 1e12,
        )
