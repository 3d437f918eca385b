# SPDX-License-Identifier: Apache-2.0
"""How a model is quantized, by its own files or by what is to be planned for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from padmarlin.errors import check_group_size
from padmarlin.models.config import Config

_MAX_GROUP_SIZE = 2**20


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
class Scheme:
    """The common settings, and which modules they do not hold for."""

    common: Quantization
    rules: tuple[tuple[re.Pattern[str], Quantization | None], ...] = ()  # the first match decides
    lm_head: bool = False
    note: str = ""
    _cache: dict[str, Quantization | None] = field(default_factory=dict, compare=False, repr=False)

    def of(self, module: str) -> Quantization | None:
        """The settings of a module of the checkpoint; None: it is not quantized."""
        if module not in self._cache:
            matching = (own for rule, own in self.rules if rule.search(module))
            self._cache[module] = next(matching, self.common)
        return self._cache[module]

    def with_choices(
        self, bits: int | None, group_size: int | None, act_order: bool | None, sym: bool | None
    ) -> Scheme:
        """With what the caller asks for instead of what the files say."""
        given = {"bits": bits, "group_size": group_size, "act_order": act_order, "sym": sym}
        asked = {key: value for key, value in given.items() if value is not None}
        replaced = [
            f"{key} {getattr(self.common, key)} -> {value}"
            for key, value in asked.items()
            if self.common.source != "assumed" and getattr(self.common, key) != value
        ]

        def chosen(own: Quantization) -> Quantization:
            return replace(own, **asked)  # type: ignore[arg-type]

        rules = tuple((rule, own and chosen(own)) for rule, own in self.rules)
        source = self.common.source
        asked_note = f"not as {source} says: {', '.join(replaced)}" if replaced else ""
        note = "; ".join(filter(None, (self.note, asked_note)))
        return Scheme(chosen(self.common), rules, self.lm_head, note)


def read_scheme(config: Config | None) -> Scheme:
    """From the object of quantization settings; None, or a method without groups: assumed."""
    if config is None:
        return Scheme(Quantization())
    method = config.text("quant_method") or config.text("method") or "gptq"
    reader = _READERS.get(method.lower())
    if reader is None:
        note = f"the files are quantized by {method!r}; planned as if requantized in groups"
        return Scheme(Quantization(), note=note)
    return reader(config)


def _bits(config: Config, *keys: str) -> int:
    bits = config.size(*keys)
    if bits not in (4, 8):
        config.refuse(next(filter(config.has, keys)), "4 or 8")
    return bits


def _group_size(config: Config, *keys: str) -> int:
    key = next(filter(config.has, keys), keys[0])
    if config.values.get(key) == -1:
        return -1
    return check_group_size("plan_model", config.size(key, maximum=_MAX_GROUP_SIZE))


def _read_gptq(config: Config) -> Scheme:
    common = Quantization(
        "gptq",
        _bits(config, "bits"),
        _group_size(config, "group_size"),
        config.flag("desc_act"),
        config.flag("sym", True),
        config.source,
    )
    rules = _skipped_rules(config.texts("modules_to_not_convert"))
    rules += _dynamic_rules(config, common) if config.has("dynamic") else []
    rules += _only_rules(config)
    return Scheme(common, tuple(rules), config.flag("lm_head"))


def _dynamic_rules(
    config: Config, common: Quantization
) -> list[tuple[re.Pattern[str], Quantization | None]]:
    """GPTQModel's: a regular expression for a name's beginning, "-:" in front: not quantized."""
    found: list[tuple[re.Pattern[str], Quantization | None]] = []
    dynamic = config.part("dynamic")
    for rule, values in dynamic.values.items():
        expression = rule.removeprefix("-:").removeprefix("+:")
        # GPTQModel matches from the beginning.
        pattern = _compiled(config, "dynamic", f"^(?:{expression})")
        if rule.startswith("-:"):
            found.append((pattern, None))
            continue
        if not isinstance(values, dict):
            dynamic.refuse(rule, "an object of settings")
        own = Config(values, f"{rule!r} of {dynamic.source}")
        found.append(
            (
                pattern,
                replace(
                    common,
                    bits=_bits(own, "bits") if own.has("bits") else common.bits,
                    group_size=_group_size(own, "group_size")
                    if own.has("group_size")
                    else common.group_size,
                    act_order=own.flag("desc_act", common.act_order),
                    sym=own.flag("sym", common.sym),
                ),
            )
        )
    return found


def _only_rules(config: Config) -> list[tuple[re.Pattern[str], Quantization | None]]:
    """Transformers': lists of the only modules that are quantized, by the ends of their names."""
    key = "modules_in_block_to_quantize"
    if not config.has(key):
        return []
    lists = config.values[key]
    flat = [name for names in lists for name in names] if _is_nested(lists) else lists
    names = Config({key: flat}, config.source).texts(key)
    ends = "|".join(map(re.escape, names))
    return [(re.compile(f"^(?!.*(?:{ends})$)"), None)]


def _is_nested(lists: object) -> bool:
    return isinstance(lists, list) and all(isinstance(names, list) for names in lists)


def _read_awq(config: Config) -> Scheme:
    common = Quantization(
        "awq",
        _bits(config, "bits", "w_bit"),
        _group_size(config, "group_size", "q_group_size"),
        False,
        not config.flag("zero_point", True),
        config.source,
    )
    return Scheme(common, tuple(_skipped_rules(config.texts("modules_to_not_convert"))))


def _read_compressed(config: Config) -> Scheme:
    groups = config.part("config_groups")
    if not groups.values:
        config.refuse("config_groups", "at least one group")
    schemes = [_compressed_group(groups.part(key)) for key in groups.values]
    rules = [
        (_target(config, "ignore", target), None)
        for target in config.texts("ignore")
        if target != "Linear"
    ]
    own: list[tuple[re.Pattern[str], Quantization | None]] = []
    for targets, scheme in schemes:
        own += [(_target(groups, "targets", target), scheme) for target in targets]
    common = next((scheme for targets, scheme in schemes if "Linear" in targets), None)
    # Without a class among the targets, only what they name is quantized.
    if common is None:
        return Scheme(schemes[0][1], (*rules, *own, (re.compile(""), None)))
    return Scheme(common, (*rules, *own))


def _compressed_group(group: Config) -> tuple[tuple[str, ...], Quantization]:
    weights = group.part("weights")
    kind = weights.text("type", "int")
    if kind != "int":
        weights.refuse("type", "'int'", "plan for a requantized model: pass the fp16 one")
    strategy = weights.text("strategy", "group").lower()
    if strategy not in ("group", "channel"):
        weights.refuse("strategy", "'group' or 'channel'")
    order = weights.values.get("actorder")
    # "weight", also called "static", ordered the calibration only.
    return group.texts("targets"), Quantization(
        "compressed-tensors",
        _bits(weights, "num_bits"),
        -1 if strategy == "channel" else _group_size(weights, "group_size"),
        order is True or (isinstance(order, str) and order.lower() in ("group", "dynamic")),
        weights.flag("symmetric", True),
        group.source.rpartition(" of ")[2],
    )


def _target(config: Config, key: str, target: str) -> re.Pattern[str]:
    if target.startswith("re:"):
        return _compiled(config, key, f"^(?:{target.removeprefix('re:')})")
    return re.compile(f"^{re.escape(target)}$")


def _skipped_rules(names: tuple[str, ...]) -> list[tuple[re.Pattern[str], Quantization | None]]:
    """AWQ's list: parts of names."""
    return [(re.compile(re.escape(name)), None) for name in names if name]


def _compiled(config: Config, key: str, expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        config.refuse(key, f"regular expressions ({expression!r}: {error})")


_READERS: dict[str, Callable[[Config], Scheme]] = {
    "gptq": _read_gptq,
    "gptq_marlin": _read_gptq,
    "auto-round": _read_gptq,
    "awq": _read_awq,
    "awq_marlin": _read_awq,
    "compressed-tensors": _read_compressed,
}
