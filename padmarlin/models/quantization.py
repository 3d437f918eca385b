# SPDX-License-Identifier: Apache-2.0
"""How a model is quantized, for planning: by its own settings, or by what is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from padmarlin.checkpoint.scheme import Excluded, Scheme
from padmarlin.checkpoint.schemes import METHODS, common_scheme, method_of, schemes_of
from padmarlin.jsonfile import JsonObject

# Other names of methods, each of which has the settings of one that is known.
_ALIASES = {"gptq_marlin": "gptq", "auto-round": "gptq", "awq_marlin": "awq"}


@dataclass(frozen=True)
class Quantization:
    """Settings of integer weights in groups."""

    method: str = "gptq"  # gptq, awq, compressed-tensors
    bits: int = 4
    group_size: int = 128
    act_order: bool = False
    sym: bool = True
    source: str = "assumed"  # "assumed", or the file that says so

    @property
    def packed_bytes_per_weight(self) -> float:
        """Codes and fp16 scales; zero points are not counted."""
        scale = 0.0 if self.group_size == -1 else 2 / self.group_size
        return self.bits / 8 + scale


@dataclass(frozen=True)
class ModelQuantization:
    """The common settings, and what holds for single modules."""

    common: Quantization
    lm_head: bool = False  # whether the settings say that it is quantized
    note: str = ""
    _settings: JsonObject | None = None  # None: nothing but the common ones is known
    _asked: Mapping[str, int | bool] = field(default_factory=dict)

    def of(self, modules: Sequence[str]) -> dict[str, Quantization | None]:
        """The settings of modules of the checkpoint; None: one that is not quantized."""
        if self._settings is None:
            return dict.fromkeys(modules, self.common)
        method = self.common.method
        said = schemes_of(self._settings, method, modules)
        plain = {name for name in modules if _is_listed_as_plain(self._settings, method, name)}
        return {
            name: None
            if name in plain or isinstance(scheme, Excluded)
            else replace(_of_scheme(scheme, self.common.source), **self._asked)  # type: ignore[arg-type]
            for name, scheme in said.items()
        }

    def with_choices(
        self, bits: int | None, group_size: int | None, act_order: bool | None, sym: bool | None
    ) -> ModelQuantization:
        """With what the caller asks for instead of what the files say."""
        given = {"bits": bits, "group_size": group_size, "act_order": act_order, "sym": sym}
        asked = {key: value for key, value in given.items() if value is not None}
        replaced = [
            f"{key} {getattr(self.common, key)} -> {value}"
            for key, value in asked.items()
            if self.common.source != "assumed" and getattr(self.common, key) != value
        ]
        source = self.common.source
        asked_note = f"not as {source} says: {', '.join(replaced)}" if replaced else ""
        note = "; ".join(filter(None, (self.note, asked_note)))
        common = replace(self.common, **asked)  # type: ignore[arg-type]
        return replace(self, common=common, note=note, _asked=asked)


def model_quantization(settings: JsonObject | None) -> ModelQuantization:
    """By the settings of a checkpoint; None, or a method without groups: assumed."""
    if settings is None:
        return ModelQuantization(Quantization())
    written = method_of(settings)
    method = _ALIASES.get(written, written)
    if method not in METHODS:
        note = f"the files are quantized by {written!r}; planned as if requantized in groups"
        return ModelQuantization(Quantization(), note=note)
    common = _of_scheme(common_scheme(settings, method), settings.source)
    lm_head = method == "gptq" and settings.flag("lm_head", False)
    return ModelQuantization(common, lm_head, _settings=settings)


def _of_scheme(scheme: Scheme, source: str) -> Quantization:
    # Where nothing is said, GPTQ is symmetric, and AWQ is not.
    sym = scheme.method == "gptq" if scheme.sym is None else scheme.sym
    return Quantization(
        scheme.method, scheme.bits, scheme.group_size, scheme.act_order, sym, source
    )


def _is_listed_as_plain(settings: JsonObject, method: str, module: str) -> bool:
    """Whether the lists of AutoAWQ and Transformers leave a module alone. Reading needs neither:
    there the files show what is quantized."""
    if method == "compressed-tensors":
        return False
    if any(part in module for part in settings.texts("modules_to_not_convert") if part):
        return True
    only = _only_quantized(settings) if method == "gptq" else ()
    return bool(only) and not module.endswith(only)


def _only_quantized(settings: JsonObject) -> tuple[str, ...]:
    """The ends of the only names that are quantized; empty: all are."""
    key = "modules_in_block_to_quantize"
    lists = settings.values.get(key)
    if isinstance(lists, list) and all(isinstance(names, list) for names in lists):
        settings = settings.with_values({key: [name for names in lists for name in names]})
    return settings.texts(key)
