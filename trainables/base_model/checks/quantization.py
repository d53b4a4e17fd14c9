"""Tells how a checkpoint's weights are quantized: bitsandbytes' NF4 is taken as it is, all else refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.base_model.checks.faults import ModelFault
from trainables.base_model.checks.values import Rule, list_of, name_of, or_null, text, truth
from trainables.shown_values import shortened

KEY, SKIPPED, COMPUTE_DTYPE = "quantization_config", "llm_int8_skip_modules", "bnb_4bit_compute_dtype"
HEAD_MODULE = "lm_head"  # never quantized: its products are those of the loss
MOST_SKIPPED = 20_000  # all linear layers of a thousand decoder layers, and some
_RULE = "the base model's weights must not be quantized already"
_REMEDY = (
    "Give the original weights, which precision nf4 quantizes, or an NF4 checkpoint of bitsandbytes (on the hub their "
    "names often end in -bnb-4bit)."
)
USE_NF4 = "Set precision to nf4, or give the original weights."
_MODULE = re.compile(r"[\w-]+(\.[\w-]+)*")  # names only: transformers would match patterns, and some run for ever


def _module() -> Rule:
    def check(value: Any) -> str | None:
        fits = isinstance(value, str) and len(value) <= 500 and _MODULE.fullmatch(value)
        return None if fits else "must be the name of a module, such as lm_head or model.layers.0.mlp"

    return check


_KEYS: Mapping[str, Rule] = {
    "bnb_4bit_quant_storage": or_null(name_of(("uint8",))),
    "bnb_4bit_use_double_quant": truth(),
    COMPUTE_DTYPE: or_null(text()),  # of whoever made it: here it is the processor's
    SKIPPED: or_null(list_of(_module(), MOST_SKIPPED)),
}


@dataclass(frozen=True)
class FourBit:
    """How a checkpoint's linear weights are quantized: in NF4, blocks of 64 values sharing a scale.

    With `double_quantization` scales are 8 bits wide and themselves in blocks. `skipped` are modules whose weights
    were left in 16 bits.
    """

    double_quantization: bool
    skipped: tuple[str, ...] = ()

    def quantizes(self, module: str) -> bool:
        """Whether the linear layer of this full name, such as `model.layers.0.mlp.up_proj`, is quantized.

        As transformers has it: a name in `skipped` stands for what begins with it as a whole, or ends in it.
        """
        return module != HEAD_MODULE and not any(
            module == name or module.startswith(f"{name}.") or module.endswith(name) for name in self.skipped
        )

    def __str__(self) -> str:
        double = "with" if self.double_quantization else "without"
        left = [name for name in self.skipped if name != HEAD_MODULE]
        skipped = f", {len(left)} modules left in 16 bits" if left else ""
        return f"NF4 {double} double quantization{skipped}"


def only_nf4(name: str, four_bit: FourBit) -> str:
    """Returns the rule of the precisions in which a checkpoint can be trained."""
    return f"precision must be nf4, as {name} is quantized already ({four_bit})"


def four_bit_of(values: Mapping[str, Any]) -> FourBit | None:
    """Returns how a checkpoint is quantized by a configuration without faults; None where it is not."""
    given = values.get(KEY)
    if not given:
        return None
    return FourBit(bool(given.get("bnb_4bit_use_double_quant", False)), tuple(given.get(SKIPPED) or ()))


def quantization_faults(values: Mapping[str, Any], file: str, name: str) -> Iterator[ModelFault]:
    """Yields what is wrong with a configuration's quantization; `name` is what the user calls the model."""
    given = values.get(KEY)
    if given is None or given == {}:
        return
    method = _method(given)
    if method is not None:
        yield ModelFault(file, KEY, given, f"{_RULE}; {name} is ({method}), and not NF4 of bitsandbytes", _REMEDY)
        return
    for key, rule in _KEYS.items():
        if key in given and (broken := rule(given[key])):
            remedy = "Take config.json from where the model was published."
            yield ModelFault(file, f"{KEY}.{key}", given[key], broken, remedy)


def _method(given: Any) -> str | None:
    """Returns the name of the method that the weights are quantized by; None where it is NF4 of bitsandbytes."""
    if not isinstance(given, Mapping):
        return "no mapping"
    of_bits = ("load_in_4bit", "load_in_8bit")  # early checkpoints of bitsandbytes do not name the method
    usual = "bitsandbytes" if any(key in given for key in of_bits) else "unknown"
    method = given.get("quant_method", usual)
    if not isinstance(method, str) or method.lower() not in ("bitsandbytes", "bitsandbytes_4bit"):
        return shortened(str(method), 40)
    if given.get("load_in_8bit") or not given.get("load_in_4bit"):
        return "int8 of bitsandbytes" if given.get("load_in_8bit") else "bitsandbytes, of neither 4 nor 8 bits"
    kind = given.get("bnb_4bit_quant_type", "fp4")  # what transformers takes
    return None if kind == "nf4" else f"{shortened(str(kind), 40).upper()} of bitsandbytes"
