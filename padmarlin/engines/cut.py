# SPDX-License-Identifier: Apache-2.0
"""One rank's part of a quantized linear layer, in the terms that engines check."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from padmarlin.errors import check_choice, check_group_size, check_int, refusal
from padmarlin.plan import MIN_THREAD_K, MIN_THREAD_N

METHODS = ("gptq", "awq", "compressed-tensors")

MARLIN_GROUPS = (-1, 32, 64, 128)
"""The group sizes that integer Marlin kernels are compiled for."""


@dataclass(frozen=True)
class Cut:
    """What a rank holds. The ranks of a cut are alike: engines cut into equal parts."""

    k: int  # rows (in_features) of the rank
    n_parts: tuple[int, ...]  # columns of the rank, of each matrix that engines fuse: q, k, v
    full_k: int  # rows of the whole matrix
    bits: int = 4
    group_size: int = 128
    act_order: bool = False
    sym: bool = True
    method: str = "gptq"
    tp: int = 1
    axis: str | None = "k"  # "k": row-parallel, "n": column-parallel, None: every rank has it all
    experts: bool = False  # one of a layer of experts

    @classmethod
    def of(
        cls,
        k: int,
        n: int,
        *,
        tp: int = 1,
        axis: str | None = "k",
        bits: int = 4,
        group_size: int = 128,
        act_order: bool = False,
        sym: bool = True,
        method: str = "gptq",
        experts: bool = False,
    ) -> Cut:
        """The cut of a whole (k, n) matrix over `tp` ranks."""
        sizes = {"k": check_int("Cut.of", "k", k, 1), "n": check_int("Cut.of", "n", n, 1)}
        tp = check_int("Cut.of", "tp", tp, 1)
        check_choice("Cut.of", "axis", axis, ("k", "n", None))
        check_choice("Cut.of", "bits", bits, (4, 8))
        check_choice("Cut.of", "method", method, METHODS)
        if axis is not None:
            if sizes[axis] % tp:
                raise ValueError(refusal("Cut.of", axis, sizes[axis], f"a multiple of tp = {tp}"))
            sizes[axis] //= tp
        return cls(
            k=sizes["k"],
            n_parts=(sizes["n"],),
            full_k=k,
            bits=bits,
            group_size=check_group_size("Cut.of", group_size),
            act_order=act_order,
            sym=sym,
            method=method,
            tp=tp,
            axis=axis,
            experts=experts,
        )

    @cached_property
    def n(self) -> int:
        return sum(self.n_parts)

    @property
    def whole_groups(self) -> bool:
        """The rank's rows are whole groups. One group over all of K is whole on every rank."""
        return self.group_size == -1 or self.k % self.group_size == 0

    @property
    def straddles(self) -> bool:
        """Two ranks share a group."""
        return self.tp > 1 and self.axis == "k" and not self.whole_groups

    @property
    def ragged(self) -> bool:
        """The last group of the whole matrix is shorter than the others."""
        return not self.whole_groups and not self.straddles

    @property
    def reorders(self) -> bool:
        """Act-order, and more than one group to order rows by."""
        return self.act_order and self.group_size != -1 and self.full_k > self.group_size

    @property
    def groups(self) -> str:
        """How many groups the rank's rows are: "115.5"."""
        return f"{self.k / self.group_size:.3f}".rstrip("0").rstrip(".")

    @property
    def whole_words(self) -> bool:
        """Both axes are cut between packed 32-bit words."""
        codes = 32 // self.bits
        return self.k % codes == 0 and all(part % codes == 0 for part in self.n_parts)

    @property
    def whole_tiles(self) -> bool:
        """The strict check of the tile: K and N at once."""
        return self.k % MIN_THREAD_K == 0 and self.n % MIN_THREAD_N == 0

    @property
    def some_tile_fits(self) -> bool:
        """One of Marlin's two families of thread tiles, (k, n) = (128, 64) or (64, 128), fits."""
        return any(self.k % k == 0 and self.n % n == 0 for k, n in ((128, 64), (64, 128)))
