# SPDX-License-Identifier: Apache-2.0
"""What one rank does: load its part of each layer, multiply, and compare.

Everything padmarlin is in `Subject`: how a part is loaded, dequantized and multiplied. The rest is
plain arithmetic on what the independent reader says.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from padmarlin.partition import Shard
from padmarlin.verify.extension import Extended
from padmarlin.verify.files import Array
from padmarlin.verify.independent import Layer, blocks
from padmarlin.verify.report import LayerResult
from padmarlin.weight import PaddedWeight

ROWS = 16
"""Rows of the activations that each layer is multiplied with."""

_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}
# Rounding to p bits errs by 2^-p of the number at most, or by half the smallest subnormal number.
_ROUNDING = {"F16": (2.0**-11, 2.0**-25), "BF16": (2.0**-8, 2.0**-134)}


@dataclass(frozen=True)
class Subject:
    """What is verified."""

    directory: Path
    load: Callable[..., PaddedWeight]
    dequantize: Callable[[PaddedWeight], Tensor]
    gemm: Callable[[Tensor, PaddedWeight], Tensor]


@dataclass(frozen=True)
class LayerTask:
    """A layer, what it must be, and how it is cut."""

    name: str
    reference: Extended
    axis: str | None
    not_cut: str | None = None
    stored: Layer | None = None  # the padded layer, which must be that reference too
    fresh: Path | None = None  # a checkpoint whose repack must be the same, tensor by tensor

    @property
    def k(self) -> int:
        return self.reference.rows.new

    @property
    def n(self) -> int:
        return self.reference.columns.new


@dataclass
class _Findings:
    """What a rank found out about its part."""

    weights_wrong: int
    faults: list[str]


def check_layer(
    task: LayerTask, subject: Subject, rank: int, world_size: int, device: torch.device
) -> LayerResult | None:
    """Compares a layer over all ranks; rank 0 has the result."""
    ranks = world_size if task.axis is not None else 1
    rows = _part(task.k, rank, ranks) if task.axis == "k" else slice(0, task.k)
    columns = _part(task.n, rank, ranks) if task.axis == "n" else slice(0, task.n)
    shard = None if task.axis is None else Shard(task.axis, rank, world_size)
    dtype = task.reference.layer.dtype
    findings = _Findings(0, [])
    weight = _loaded(task, subject, shard, device, findings)
    if weight is not None and weight.dtype != _DTYPES[dtype]:
        findings.faults.append(f"loaded as {weight.dtype}, expected {_DTYPES[dtype]}")
    if weight is not None and task.fresh is not None:
        _compare_repacks(task, subject, shard, weight, findings)

    activations = _activations(task.name, task.k, dtype)[:, rows]
    if weight is None:
        values, product = None, _no_product(columns, device)
    else:
        product = _product(subject, weight, activations, columns, findings)
        values = subject.dequantize(weight)
    partial, bound = _reference(task, values, rows, columns, activations, findings)
    return _gather(task, product, partial, bound, findings, rank, world_size)


def _loaded(
    task: LayerTask,
    subject: Subject,
    shard: Shard | None,
    device: torch.device,
    findings: _Findings,
) -> PaddedWeight | None:
    """None: a layer of B that padmarlin refuses. It is read independently all the same; only if A's
    is refused, too, is the input bad."""
    try:
        return subject.load(subject.directory, task.name, shard=shard, device=device)
    except ValueError as error:
        if task.stored is None:
            raise
        original = task.reference.layer.files.directory
        subject.load(original, task.name, device=device)
        findings.faults.append(f"refused: {error}")
        return None


def _part(size: int, rank: int, ranks: int) -> slice:
    return slice(size * rank // ranks, size * (rank + 1) // ranks)


def _activations(name: str, k: int, dtype: str) -> Tensor:
    """The same on every rank: seeded by the layer's name."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(ROWS, k, generator=generator).to(_DTYPES[dtype])


def _product(
    subject: Subject, weight: PaddedWeight, a: Tensor, columns: slice, findings: _Findings
) -> Tensor:
    """What padmarlin makes of the rank's part, in float64."""
    width = columns.stop - columns.start
    got = subject.gemm(a.to(weight.device, weight.dtype), weight)
    if tuple(got.shape) == (ROWS, width):
        return got.double()
    findings.faults.append(f"gemm gave {tuple(got.shape)}, expected {(ROWS, width)}")
    return _no_product(columns, weight.device)


def _no_product(columns: slice, device: torch.device) -> Tensor:
    """NaN, which is within no bound."""
    shape = (ROWS, columns.stop - columns.start)
    return torch.full(shape, float("nan"), dtype=torch.float64, device=device)


def _compare_repacks(
    task: LayerTask,
    subject: Subject,
    shard: Shard | None,
    weight: PaddedWeight,
    findings: _Findings,
) -> None:
    fresh = subject.load(
        task.fresh, task.name, shard=shard, device=weight.device, dtype=weight.dtype
    ).state_dict()
    stored = weight.state_dict()
    if stored.keys() != fresh.keys():
        findings.faults.append(f"repacked: {sorted(stored)}, fresh: {sorted(fresh)}")
        return
    for name, tensor in fresh.items():
        if tensor.shape != stored[name].shape or not torch.equal(tensor, stored[name]):
            findings.faults.append(f"{name} is not what a fresh repack gives")


def _reference(
    task: LayerTask,
    values: Tensor | None,
    rows: slice,
    columns: slice,
    activations: Tensor,
    findings: _Findings,
) -> tuple[Array, Array]:
    """(product, bound of its error) by the independent reader; compares the weights on the way.

    An element is a sum of k products in fp32, rounded once. The rounding errs by u times it. The
    sum of k terms errs by sqrt(k) times 2^-24 of the sum of their sizes, where errors are
    independent; 4 times that is not exceeded by chance (Higham and Mary 2019, lambda = 4).
    """
    height, width = rows.stop - rows.start, columns.stop - columns.start
    a = activations.double().numpy()
    unit, tiny = _ROUNDING[task.reference.layer.dtype]
    summing = 4 * sqrt(height) * 2.0**-24
    partial, bound = np.empty((ROWS, width)), np.empty((ROWS, width))
    if values is None:
        findings.weights_wrong += height * width
    elif tuple(values.shape) != (height, width):
        findings.weights_wrong += height * width
        findings.faults.append(f"dequantized to {tuple(values.shape)}, not {(height, width)}")
        values = None
    for here in blocks(height, width):
        there = slice(columns.start + here.start, columns.start + here.stop)
        expected = task.reference.block(rows, there)
        if task.stored is not None:
            found = task.stored.block(rows, there)
            _compare("stored", found, expected, rows, there, findings)
        if values is not None:
            found = values[:, here].cpu().double().numpy()
            wrong = _compare("padmarlin's", found, expected, rows, there, findings)
            findings.weights_wrong += wrong
        partial[:, here] = a @ expected
        sizes = np.abs(a) @ np.abs(expected)
        bound[:, here] = unit * np.abs(partial[:, here]) + summing * sizes + tiny
    return partial, bound * 1.01  # the rounding is of the sum in fp32, not of the exact one


def _compare(
    whose: str, found: Array, expected: Array, rows: slice, columns: slice, findings: _Findings
) -> int:
    """How many weights differ. A zero's sign is left aside: (q - z) * s of a negative s has one."""
    differing = found != expected
    wrong = int(differing.sum())
    # One line per layer and rank is enough to find the first of them.
    if wrong and not any(fault.startswith(whose) for fault in findings.faults):
        row, column = (int(index[0]) for index in differing.nonzero())
        findings.faults.append(
            f"{whose} weight at row {rows.start + row}, column {columns.start + column} is "
            f"{found[row, column]:.6g}, expected {expected[row, column]:.6g}"
        )
    return wrong


def _gather(
    task: LayerTask,
    product: Tensor,
    partial: Array,
    bound: Array,
    findings: _Findings,
    rank: int,
    world_size: int,
) -> LayerResult | None:
    """Adds or joins what the ranks have, and compares it on rank 0."""
    total = _joined(task.axis, product, world_size).cpu().numpy()
    reference = _joined(task.axis, torch.from_numpy(partial), world_size).numpy()
    allowed = _joined(task.axis, torch.from_numpy(bound), world_size).numpy()
    found: list[Any] = [None] * world_size
    dist.all_gather_object(found, findings)
    if rank != 0:
        return None
    deviation = np.abs(total - reference)
    # A NaN in the product is larger than any bound.
    shares = np.nan_to_num(deviation / allowed, nan=np.inf)
    of_bound = float(shares.max())
    norm = float(np.linalg.norm(reference))
    error = float(np.linalg.norm(deviation)) / norm if norm else float(np.linalg.norm(deviation))
    counted = found if task.axis is not None else found[:1]
    faults = [
        f"rank {index}: {fault}" if world_size > 1 else fault
        for index, one in enumerate(found)
        for fault in one.faults
    ]
    refused = any(fault.startswith("refused") for one in found for fault in one.faults)
    if of_bound > 1 and not refused:
        at = np.unravel_index(int(shares.argmax()), shares.shape)
        faults.append(
            f"product at row {at[0]}, column {at[1]} is {total[at]:.6g}, expected "
            f"{reference[at]:.6g} +- {allowed[at]:.2g}"
        )
    return LayerResult(
        name=task.name,
        k=task.k,
        n=task.n,
        axis=task.axis,
        not_cut=task.not_cut,
        weights_wrong=sum(one.weights_wrong for one in counted),
        error=error,
        of_bound=of_bound,
        faults=tuple(faults),
    )


def _joined(axis: str | None, part: Tensor, world_size: int) -> Tensor:
    if axis == "k":
        dist.all_reduce(part)
        return part
    if axis == "n":
        parts = [torch.empty_like(part) for _ in range(world_size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts, 1)
    return part  # every rank has all of it
