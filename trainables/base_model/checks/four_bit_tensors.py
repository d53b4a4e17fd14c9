"""Checks the tensors of a checkpoint in NF4: quantized weights, their scales, and what says how they were made.

bitsandbytes' format: of a linear layer `weight` of n values, the file has n / 2 bytes as a column, the scales `absmax`
of each 64 values, the table `quant_map` of the 16 values, and a JSON text as bytes; with double quantization `absmax`
holds bytes, which stand for values of the table `nested_quant_map`, times the scales `nested_absmax` of each 256.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainables.base_model.checks.faults import ModelFault
from trainables.base_model.checks.quantization import SKIPPED, FourBit
from trainables.base_model.checks.safetensors_header import Tensor
from trainables.base_model.checks.tensors import Needed, Shape
from trainables.base_model.checks.values import is_number
from trainables.guarded_files import open_regular, parse_json
from trainables.limits import ABSMAX_BLOCK, NF4_BLOCK

Headers = Mapping[Path, Mapping[str, Tensor]]

WEIGHT, STATE = "weight", "quant_state.bitsandbytes__nf4"
MOST_STATE_BYTES = 4096
DTYPES = ("float16", "bfloat16", "float32")  # that the weights had
_AGAIN = "Take config.json and all weights from the same model, completely."


def four_bit_faults(headers: Headers, needed: Needed, four_bit: FourBit) -> list[ModelFault]:
    """Returns one fault for each kind of what is wrong with the quantized weights of a folder's files."""
    weights = _by_weight(headers, needed)
    faults: dict[str, ModelFault] = {}  # the first of each kind
    for name, shape in {**needed.shapes, **needed.optional}.items():
        if len(shape) == 2 and WEIGHT in weights.get(name, {}):
            full = needed.in_file(name)
            allowed = bool(needed.layer.match(name))
            asked = allowed and four_bit.quantizes(full.removesuffix(".weight"))
            for kind, value, rule in _weight_faults(shape, weights[name], four_bit, asked, allowed):
                faults.setdefault(kind, ModelFault(str(weights[name][WEIGHT].path), full, value, rule, _AGAIN))
    return list(faults.values())


@dataclass(frozen=True)
class _Part:
    """One tensor of a linear layer, and the file that it is in."""

    tensor: Tensor
    path: Path

    def __str__(self) -> str:
        return f"{self.tensor.dtype} of {_by(self.tensor.shape)}"


def _by_weight(headers: Headers, needed: Needed) -> dict[str, dict[str, _Part]]:
    """Returns each weight's tensors by their part of its name, `weight` itself among them, by the weight's name."""
    found: defaultdict[str, dict[str, _Part]] = defaultdict(dict)
    for path, header in headers.items():
        for name, tensor in header.items():
            module, _, part = needed.short(name).partition(".weight")
            found[f"{module}.weight"][part.removeprefix(".") or WEIGHT] = _Part(tensor, path)
    return found


def whole_weights(tensors: Mapping[str, Tensor], needed: Needed) -> dict[str, Tensor]:
    """Returns the tensors without those of quantization, the quantized weights in the type and shape they stand for."""
    whole = {}
    shapes = {**needed.shapes, **needed.optional}
    for name, tensor in tensors.items():
        if _is_quantized(name, tensors):
            shape = shapes.get(needed.short(name), tensor.shape)
            whole[name] = replace(tensor, dtype="F16", shape=shape)
        elif ".weight." not in name or not _is_quantized(f"{name.partition('.weight.')[0]}.weight", tensors):
            whole[name] = tensor
    return whole


def _is_quantized(weight: str, names: Mapping[str, Any]) -> bool:
    return f"{weight}.{STATE}" in names


def _weight_faults(
    shape: Shape, parts: Mapping[str, _Part], four_bit: FourBit, asked: bool, allowed: bool
) -> Iterator[tuple[str, Any, str]]:
    """Yields a kind, a value and a rule for each fault of a weight that is `asked` to be quantized, or not."""
    quantized = STATE in parts
    if quantized == asked:
        yield from _quantized_faults(shape, parts, four_bit) if quantized else ()
    elif asked:
        rule = f"must be quantized, as no name in quantization_config.{SKIPPED} of config.json stands for it"
        yield "choice", str(parts[WEIGHT]), rule
    elif allowed:
        yield "choice", "NF4", f"must be left whole, as quantization_config.{SKIPPED} of config.json has it"
    else:
        yield "choice", "NF4", "must not be quantized: only linear weights within layers may be, not the head's"


def _quantized_faults(shape: Shape, parts: Mapping[str, _Part], four_bit: FourBit) -> Iterator[tuple[str, Any, str]]:
    expected = _expected(math.prod(shape), four_bit.double_quantization)
    for part, (dtype, size) in expected.items():
        there = parts.get(part)
        if there is None or (there.tensor.dtype, there.tensor.shape) != (dtype, size):
            rule = f"must have {part} as {dtype} of {_by(size)}, as config.json has it: {four_bit}"
            yield "parts", f"{part}: {there}" if there else "missing", rule
            return
    state, more = parts[STATE], sorted(parts.keys() - expected.keys() - {STATE})
    if more:
        yield "parts", more[0], "must have no other tensors beside it than those of NF4"
    elif state.tensor.dtype != "U8" or not 0 < math.prod(state.tensor.shape) <= MOST_STATE_BYTES:
        yield "parts", f"{STATE}: {state}", "must be a short text, as bytes"
    else:
        said = next(_state_faults(_read_state(state), shape, four_bit.double_quantization), None)
        if said:
            key, value, rule = said
            yield "state", {key: value}, f"must say in {STATE} how it was quantized: {rule}"


def _expected(values: int, double: bool) -> dict[str, tuple[str, Shape]]:
    blocks = -(-values // NF4_BLOCK)
    nested = {"nested_absmax": ("F32", (-(-blocks // ABSMAX_BLOCK),)), "nested_quant_map": ("F32", (256,))}
    return {
        "weight": ("U8", (-(-values // 2), 1)),
        "absmax": ("U8" if double else "F32", (blocks,)),
        "quant_map": ("F32", (16,)),
        **(nested if double else {}),
    }


def _read_state(part: _Part) -> Any:
    with open_regular(part.path) as file:
        begin = 8 + int.from_bytes(file.read(8), "little")
        file.seek(begin + part.tensor.begin)
        content = file.read(part.tensor.end - part.tensor.begin)
    try:
        return parse_json(content)
    except ValueError:
        return None


def _state_faults(values: Any, shape: Shape, double: bool) -> Iterator[tuple[str, Any, str]]:
    if not isinstance(values, dict):
        yield "text", values, "as a JSON mapping"
        return
    expected = {"quant_type": "nf4", "blocksize": NF4_BLOCK, "shape": list(shape)}
    if double:
        expected |= {"nested_blocksize": ABSMAX_BLOCK, "nested_dtype": "float32"}
    for key, value in expected.items():
        if values.get(key) != value:
            yield key, values.get(key), f"{key} must be {value}"
    if values.get("dtype") not in DTYPES:
        yield "dtype", values.get("dtype"), f"dtype must be one of {', '.join(DTYPES)}"
    if double and not is_number(values.get("nested_offset")):
        yield "nested_offset", values.get("nested_offset"), "nested_offset must be a finite number"
    known = {*expected, "dtype", *(["nested_offset"] if double else [])}
    if more := sorted(map(str, values.keys() - known)):
        yield more[0], values.get(more[0]), "no other key than NF4's"


def _by(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a single number"
