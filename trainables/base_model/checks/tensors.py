"""Lists the tensors that a configuration asks for, with their shapes, and compares files with it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables.base_model.checks.faults import ModelFault
from trainables.base_model.families import ATTENTION, FAMILIES, JOINED_QKV, with_defaults
from trainables.base_model.probe.facts import DecoderFacts
from trainables.base_model.probe.probe import probe
from trainables.base_model.shape import ModelShape
from trainables.shown_values import shortened

Shape = tuple[int, ...]

PREFIX = "model."  # of names in a causal model; a model saved without its head has none
HEAD, EMBEDDING = "lm_head.weight", "embed_tokens.weight"
_LAYER = re.compile(r"layers\.\d+\.")
_UNUSED = re.compile(r"rotary_emb\.|masked_bias$")  # computed anew from the configuration, and saved by old versions
_UNUSED_OF_OTHERS = re.compile(rf"{_UNUSED.pattern}|(?:attn|attention)\.bias$")  # a causal mask, too


@dataclass(frozen=True)
class Needed:
    """The tensors that a model needs, by name without the prefix, and those it can do without.

    `ties` are the optional tensors that are the same as a needed one, and may stand in its place; `bare` the names that
    never have the prefix; `layer` what names in layers begin with, and `unused` what in them is passed over.
    """

    shapes: Mapping[str, Shape]
    optional: Mapping[str, Shape]
    ties: Mapping[str, str] = field(default_factory=lambda: {HEAD: EMBEDDING})
    prefix: str = PREFIX
    bare: Collection[str] = (HEAD,)
    layer: re.Pattern[str] = _LAYER
    unused: re.Pattern[str] = _UNUSED
    renamings: Sequence[tuple[str, str]] = ()  # patterns of names in files, and what they stand for

    @property
    def parameter_count(self) -> int:
        """All parameters, tied ones once."""
        return sum(map(math.prod, self.shapes.values()))

    def in_file(self, name: str) -> str:
        """Returns a tensor's whole name."""
        return name if name in self.bare else self.prefix + name

    def short(self, name: str) -> str:
        """Returns the name without its prefix of a tensor in a file, as transformers calls it."""
        for pattern, own in self.renamings:
            name = re.sub(pattern, own, name)
        return name.removeprefix(self.prefix)


def needed_tensors(values: Mapping[str, Any]) -> Needed:
    """Returns what a configuration asks for; its values must hold as `configuration_faults` has it."""
    if values["model_type"] not in FAMILIES:
        return probed_tensors(probe(values))
    known = with_defaults(values)
    shape = ModelShape.from_config(known)
    layer = _layer(shape, known)
    shapes: dict[str, Shape] = {EMBEDDING: (shape.vocab_size, shape.hidden_size), "norm.weight": (shape.hidden_size,)}
    shapes |= {f"layers.{index}.{name}": size for index in range(shape.layers) for name, size in layer.items()}
    head = {HEAD: shapes[EMBEDDING]}
    return Needed(shapes, head) if shape.tie_word_embeddings else Needed({**shapes, **head}, {})


def probed_tensors(facts: DecoderFacts) -> Needed:
    """Returns what a decoder that was probed asks for."""

    def short(name: str) -> str:
        return name.removeprefix(facts.prefix)

    sizes = {**facts.tensors, **{name: facts.tensors[source] for name, source in facts.tied.items()}}
    bare = frozenset(name for name in sizes if not name.startswith(facts.prefix))
    layers = re.match(r".*?(?=\.\d+\.)", short(facts.linears[0].name))
    assert layers is not None
    return Needed(
        shapes={short(name): size for name, size in facts.tensors.items()},
        optional={short(name): sizes[name] for name in facts.tied},
        ties={short(name): short(source) for name, source in facts.tied.items()},
        prefix=facts.prefix,
        bare=bare,
        layer=re.compile(re.escape(layers[0]) + r"\.\d+\."),
        unused=_UNUSED_OF_OTHERS,
        renamings=facts.renamings,
    )


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
        short = needed.short(name)
        if short in plain:
            yield ModelFault(place, short, name, f"must be there once; {plain[short]} is there too", again)
        plain[short] = name
    missing = [name for name in needed.shapes if name not in plain and not _stands_in(name, plain, needed)]
    if missing:
        yield _missing(missing, found, needed, place, again)
    shapes = {**needed.shapes, **needed.optional}
    other = [name for name in shapes if name in plain and found[plain[name]] != shapes[name]]
    if other:
        name, more = other[0], f" ({len(other) - 1} more differ)" if len(other) > 1 else ""
        rule = f"must have the shape that config.json asks for, {_by(shapes[name])}{more}"
        yield ModelFault(place, plain[name], _by(found[plain[name]]), rule, again)
    unused = [
        name for name in plain if needed.layer.match(name) and name not in shapes and not needed.unused.search(name)
    ]
    if unused:
        rule = f"must be a tensor that config.json asks for; {len(unused)} are not, and would be dropped"
        yield ModelFault(place, "tensor", shortened(plain[unused[0]]), rule, again)


def _stands_in(name: str, plain: Mapping[str, str], needed: Needed) -> bool:
    """Whether a tied tensor is there under the other of its two names."""
    return any(other in plain for other, source in needed.ties.items() if source == name and other in needed.optional)


def _missing(missing: list[str], found: Mapping[str, Shape], needed: Needed, place: str, again: str) -> ModelFault:
    first = needed.in_file(missing[0])
    ending = next((name for name in found if name.endswith(f".{first}")), None)
    if ending is not None:
        prefix = shortened(ending.removesuffix(first))
        rule = f"must begin with {needed.prefix!r}, as save_pretrained writes names; they begin with {prefix!r}"
        return ModelFault(place, "tensor", shortened(ending), rule, "Save the model once more with save_pretrained.")
    count = f"{len(missing)} tensors are missing" if len(missing) > 1 else "one tensor is missing"
    rule = f"must be there, as config.json asks for it; {count}"
    return ModelFault(place, "tensor", first, rule, again)


def _by(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a single number"
