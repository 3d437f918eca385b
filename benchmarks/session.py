# SPDX-License-Identifier: Apache-2.0
"""A run: every case against every peer that takes it, on one device, until the time is used up."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.kernel import kernel_name
from benchmarks.limits import case_limit_us
from benchmarks.method import (
    Device,
    Operand,
    Timed,
    capture,
    copies_of,
    interleave,
    num_copies,
    product,
)
from benchmarks.peers import OWN
from benchmarks.peers.base import Peer
from benchmarks.rows import Machine, Outcome, Row, make_row
from benchmarks.weights import Weight, random_activations, random_weight
from padmarlin.tradeoff.gpus import Gpu

OK = "ok"


class BrokenDevice(RuntimeError):
    """A kernel failed in a way that no later call of this process survives."""


Inputs = dict[Case, tuple[Tensor, Tensor]]  # activations and the reference, by case


@dataclass
class Entry:
    """One contestant on one part: its operand in copies, or why it has none."""

    peer: Peer
    case: Case  # with the group's first m
    status: str = OK
    operands: list[Operand] = field(default_factory=list)
    dense: Tensor | None = None


@dataclass
class Session:
    """What stays the same during a run."""

    device: Device
    gpu: Gpu
    machine: Machine
    peers: list[Peer]
    seconds_per_case: float
    deadline: float  # on `clock`
    clock: Callable[[], float] = time.monotonic

    def rows(self, cases: list[Case]) -> Iterator[list[Row]]:
        """The rows of each case as it is done. Stops before a case when the time is used up."""
        for _, same in groupby(cases, key=lambda case: (case.part, case.coding)):
            group = list(same)
            if self.clock() >= self.deadline:
                return
            entries = self._prepare(group[0])
            for case in group:
                if self.clock() >= self.deadline:
                    return
                yield self._measure(case, entries)
            del entries
            gc.collect()  # captured graphs and their pools, before the next weights
            if self.device.name == "cuda":
                torch.cuda.empty_cache()

    def _prepare(self, case: Case) -> list[Entry]:
        """padmarlin first, then the peers for which the comparison means anything."""
        weights: dict[tuple[object, object], tuple[Weight, Tensor]] = {}
        entries = []
        for peer in [OWN, *(peer for peer in self.peers if peer.applies(case))]:
            own_case = peer.case(case)
            entry = Entry(peer, own_case)
            entries.append(entry)
            reason = peer.refuses(own_case)
            if reason is not None:
                entry.status = f"refuses: {reason}"
                continue
            key = (own_case.part, own_case.coding)
            if key not in weights:
                weight = random_weight(own_case, self.device.name)
                weights[key] = (weight, weight.dense())
            weight, entry.dense = weights[key]
            try:
                count = num_copies(own_case.weight_bytes, self.device.l2_bytes)
                entry.operands = copies_of(peer.prepare(weight), count)
            except Exception as error:  # a peer's failure is a result, not the end of the run
                entry.status = self._failed(peer, error)
        return entries

    def _measure(self, case: Case, entries: list[Entry]) -> list[Row]:
        limit = case_limit_us(self.gpu, case)
        outcomes: dict[str, Outcome] = {}
        running: dict[str, Timed] = {}
        inputs: Inputs = {}
        for entry in entries:
            outcome, timed = self._start(entry, case.m, inputs)
            outcomes[entry.peer.name] = outcome
            if timed is not None:
                running[entry.peer.name] = timed
        if OWN.name in running:
            timings = interleave(list(running.values()), self.seconds_per_case, clock=self.clock)
            for name, timing in zip(running, timings, strict=True):
                error = outcomes[name].error
                outcomes[name] = Outcome(OK, timing.us, timing.spread, error)
        own = outcomes.pop(OWN.name)
        kernel = self._kernel(case, entries[0])
        if not outcomes:
            return [make_row(self.machine, case, kernel, limit, own)]
        return [
            make_row(self.machine, case, kernel, limit, own, name, outcome)
            for name, outcome in outcomes.items()
        ]

    def _start(self, entry: Entry, m: int, inputs: Inputs) -> tuple[Outcome, Timed | None]:
        """Captures and checks. Only what is right may be timed."""
        if entry.status != OK or entry.dense is None:
            return Outcome(entry.status), None
        case = Case(entry.case.part, m, entry.case.coding)
        if case not in inputs:
            a = random_activations(case, self.device.name)
            inputs[case] = a, product(a, entry.dense)
        a, reference = inputs[case]
        try:
            timed = capture(self.device, entry.operands, a, case_limit_us(self.gpu, case))
            error, right = timed.check(reference, a.dtype)
        except Exception as failed:
            return Outcome(self._failed(entry.peer, failed)), None
        if not right:
            return Outcome(f"wrong: |error| {error.norm:.1e}, worst {error.worst:.1e}"), None
        return Outcome(OK, error=error.norm), timed

    def _failed(self, peer: Peer, error: Exception) -> str:
        """In one line; raises if nothing can follow."""
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if not self.device.works():
            raise BrokenDevice(f"{peer.name} broke the device: {text}; run without it (--peers)")
        return f"fails: {text}"

    def _kernel(self, case: Case, own: Entry) -> str:
        weight = getattr(own.operands[0], "weight", None) if own.operands else None
        return kernel_name(self.machine.gpu, case, weight) if weight is not None else "padmarlin"
