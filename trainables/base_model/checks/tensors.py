"""Lists the tensors that a configuration asks for, with their shapes, and compares files with it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.base_model.checks.faults import ModelFault
from trainables.base_model.families import ATTENTION, JOINED_QKV, with_defaults
from trainables.base_model.shape import ModelShape
from trainables.shown_values import shortened

Shape = tuple[int, ...]

PREFIX = "model."  # of names in a causal model; a model saved without its head has none
HEAD, EMBEDDING = "lm_head.weight", "embed_tokens.weight"
_LAYER = re.compile(r"layers\.\d+\.")
_UNUSED = re.compile(r"rotary_emb\.|masked_bias$")  # computed anew from the configuration, and saved by old versions


@dataclass(frozen=True)
class Needed:
    """The tensors that a model needs, by name without the prefix, and those it can do without."""

    shapes: Mapping[str, Shape]
    optional: Mapping[str, Shape]

    @property
    def parameter_count(self) -> int:
        """All parameters, tied ones once."""
        return sum(map(math.prod, self.shapes.values()))


def needed_tensors(values: Mapping[str, Any]) -> Needed:
    """Returns what a configuration asks for; its values must hold as `configuration_faults` has it."""
    known = with_defaults(values)
    shape = ModelShape.from_config(known)
    layer = _layer(shape, known)
    shapes: dict[str, Shape] = {EMBEDDING: (shape.vocab_size, shape.hidden_size), "norm.weight": (shape.hidden_size,)}
    shapes |= {f"layers.{index}.{name}": size for index in range(shape.layers) for name, size in layer.items()}
    head = {HEAD: shapes[EMBEDDING]}
    return Needed(shapes, head) if shape.tie_word_embeddings else Needed({**shapes, **head}, {})


def _layer(shape: ModelShape, values: Mapping[str, Any]) -> dict[str, Shape]:
    family = shape.family
    biased = family.biased(values)
    found: dict[str, Shape] = {f"{name}.weight": (shape.hidden_size,) for name in family.norms.names}
    for name, (inward, outward) in shape.linears.items():
        part = "self_attn" if name in (*ATTENTION, *JOINED_QKV) else "mlp"
        found[f"{part}.{name}.weight"] = (outward, inward)
        if name in biased:
            found[f"{part}.{name}.bias"] = (outward,)
    if shape.has_head_norms:
        of_queries, of_keys = shape.head_norm_sizes
        found |= {"self_attn.q_norm.weight": (of_queries,), "self_attn.k_norm.weight": (of_keys,)}
    return found


def tensor_faults(found: Mapping[str, Shape], needed: Needed, place: str) -> Iterator[ModelFault]:
    """Yields a fault for the tensors that are missing, of another shape, there twice, or of no use to the model.

    `found` are the shapes at `place` by their names there.
    """
    again = "Take config.json and all weights from the same model, completely."
    plain: dict[str, str] = {}  # names without prefix: names as they are
    for name in found:
        short = name.removeprefix(PREFIX)
        if short in plain:
            yield ModelFault(place, short, name, f"must be there once; {plain[short]} is there too", again)
        plain[short] = name
    missing = [name for name in needed.shapes if name not in plain and not _stands_in(name, plain, needed)]
    if missing:
        yield _missing(missing, found, place, again)
    shapes = {**needed.shapes, **needed.optional}
    other = [name for name in shapes if name in plain and found[plain[name]] != shapes[name]]
    if other:
        name, more = other[0], f" ({len(other) - 1} more differ)" if len(other) > 1 else ""
        rule = f"must have the shape that config.json asks for, {_by(shapes[name])}{more}"
        yield ModelFault(place, plain[name], _by(found[plain[name]]), rule, again)
    unused = [name for name in plain if _LAYER.match(name) and name not in shapes and not _UNUSED.search(name)]
    if unused:
        rule = f"must be a tensor that config.json asks for; {len(unused)} are not, and would be dropped"
        yield ModelFault(place, "tensor", shortened(plain[unused[0]]), rule, again)


def _stands_in(name: str, plain: Mapping[str, str], needed: Needed) -> bool:
    """Whether a tied embedding is there under the other of its two names."""
    return name == EMBEDDING and HEAD in needed.optional and HEAD in plain


def _missing(missing: list[str], found: Mapping[str, Shape], place: str, again: str) -> ModelFault:
    ending = next((name for name in found if name.endswith(f".{PREFIX}{missing[0]}")), None)
    if ending is not None:
        prefix = shortened(ending.removesuffix(f"{PREFIX}{missing[0]}"))
        rule = f"must begin with {PREFIX!r}, as save_pretrained writes names; they begin with {prefix!r}"
        return ModelFault(place, "tensor", shortened(ending), rule, "Save the model once more with save_pretrained.")
    count = f"{len(missing)} tensors are missing" if len(missing) > 1 else "one tensor is missing"
    rule = f"must be there, as config.json asks for it; {count}"
    return ModelFault(place, "tensor", missing[0] if missing[0] == HEAD else PREFIX + missing[0], rule, again)


def _by(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a single number"
