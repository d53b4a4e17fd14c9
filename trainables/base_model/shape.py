"""Holds the sizes of a decoder, which its memory and time depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from search_spaces.layer_ranges import Layers
from search_spaces.resolution import resolve
from trainables.base_model.checks.quantization import FourBit
from trainables.base_model.families import FAMILIES, FORMLESS, JOINED_GATE_UP, JOINED_QKV, Family
from trainables.base_model.probe.counted_layer import CountedLayer
from trainables.base_model.probe.facts import DecoderFacts, LayerLinear


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder: of one of the families in `trainables.base_model.families`, or probed.

    `other_parameters` are the whole model's norms and biases: neither linear weights nor embeddings, never quantized.
    `probed` are all linear layers of the layers of a decoder without a form; its `intermediate_size` is the widest of
    them.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    attention_heads: int
    key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool
    other_parameters: int
    model_type: str = "llama"
    probed: tuple[LayerLinear, ...] = ()  # all layers' linear layers, of a family without a form
    counted: CountedLayer | None = None  # the memory of one of its layers
    four_bit: FourBit | None = None  # how a checkpoint is quantized already
    caps_attention: bool = False
    sliding_window: int | None = None  # tokens that layers with a window see; other layers see all

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> ModelShape:
        """Reads the values of a config.json. Raises KeyError where a size is missing."""
        hidden, heads = values["hidden_size"], values["num_attention_heads"]
        shape = cls(
            hidden_size=hidden,
            intermediate_size=values["intermediate_size"],
            layers=values["num_hidden_layers"],
            attention_heads=heads,
            key_value_heads=values.get("num_key_value_heads") or heads,
            head_dim=values.get("head_dim") or hidden // heads,
            vocab_size=values["vocab_size"],
            tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
            other_parameters=0,
            model_type=values.get("model_type", "llama"),
        )
        window, cap_key = values.get("sliding_window"), shape.family.attention_cap_key
        switched_off = "use_sliding_window" in shape.family.never_null and not values.get("use_sliding_window")
        shape = replace(
            shape,
            caps_attention=cap_key is not None and values.get(cap_key) is not None,
            sliding_window=window if shape.family.windowed and not switched_off else None,
        )
        return replace(shape, other_parameters=shape._norms() + shape._biases(values))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelShape:
        """Reads `asdict`'s form as JSON keeps it. Raises KeyError or TypeError for another."""
        counted, four_bit = values.get("counted"), values.get("four_bit")
        read = {
            "probed": tuple(LayerLinear(**one) for one in values.get("probed", ())),
            "counted": None if counted is None else CountedLayer.from_json(counted),
            "four_bit": None if four_bit is None else FourBit(**{**four_bit, "skipped": tuple(four_bit["skipped"])}),
        }
        return cls(**{**values, **read})

    @classmethod
    def of_facts(cls, facts: DecoderFacts) -> ModelShape:
        """Returns the shape of a decoder that was probed."""
        return cls(
            hidden_size=facts.hidden_size,
            intermediate_size=facts.intermediate_size,
            layers=facts.layers,
            attention_heads=facts.attention_heads,
            key_value_heads=facts.key_value_heads,
            head_dim=facts.head_dim,
            vocab_size=facts.vocab_size,
            tie_word_embeddings=facts.tie_word_embeddings,
            other_parameters=facts.other_parameters,
            model_type=facts.model_type,
            probed=facts.linears,
            counted=facts.counted,
        )

    @cached_property
    def linears(self) -> Mapping[str, tuple[int, int]]:
        """One layer's linear weights by short name, or by their names below the layer where they share the short one.

        Each is (in_features, out_features).
        """
        if self.probed:
            return _by_short_name(self.probed[: len(self.probed) // self.layers])
        hidden, wide, heads = self.hidden_size, self.intermediate_size, (self.query_size, self.key_size, self.key_size)
        qkv, gate_up = self.family.qkv, self.family.gate_up
        of_heads = (sum(heads),) if qkv == JOINED_QKV else heads
        of_mlp = (2 * wide,) if gate_up == JOINED_GATE_UP else (wide, wide)
        inputs = {name: (hidden, size) for name, size in zip(qkv, of_heads, strict=True)}
        output = {"o_proj": (self.query_size, hidden)}
        return {
            **({**output, **inputs} if qkv == JOINED_QKV else {**inputs, **output}),  # as the modules are listed
            **{name: (hidden, size) for name, size in zip(gate_up, of_mlp, strict=True)},
            "down_proj": (wide, hidden),
        }

    @cached_property
    def linear_names(self) -> tuple[str, ...]:
        """All layers' linear layers by their names in the model, in its order."""
        if self.probed:
            return tuple(one.name for one in self.probed)
        attention = (*self.family.qkv, "o_proj")
        blocks = [f"{'self_attn' if name in attention else 'mlp'}.{name}" for name in self.linears]
        return tuple(f"model.layers.{layer}.{name}" for layer in range(self.layers) for name in blocks)

    def targets(self, target_modules: Sequence[str], layers: Layers = None) -> tuple[str, ...]:
        """Returns the linear layers that a configuration means here. Raises TargetError with all that are not there."""
        return resolve(target_modules, layers, self.linear_names, self.family.targets or None)

    @property
    def family(self) -> Family:
        """The form that the model's family has; `FORMLESS`, which has no names, where nobody described it."""
        return FORMLESS if self.probed else FAMILIES[self.model_type]

    @property
    def query_size(self) -> int:
        """Numbers in all heads' queries of one token."""
        return self.attention_heads * self.head_dim

    @property
    def key_size(self) -> int:
        """Numbers in all heads' keys of one token, as in their values; fewer than in queries where heads share them."""
        return self.key_value_heads * self.head_dim

    @property
    def layer_linear_parameters(self) -> int:
        """Linear weights of one layer, without biases."""
        return sum(inward * outward for inward, outward in self.linears.values())

    @property
    def largest_linear(self) -> int:
        """The values of a layer's largest linear weight."""
        return max(inward * outward for inward, outward in self.linears.values())

    def doubly_quantized(self, asked: bool) -> bool:
        """Whether NF4 quantizes its scales too: as the checkpoint has it, else as the study asks."""
        return self.four_bit.double_quantization if self.four_bit else asked

    @cached_property
    def skipped_linears(self) -> tuple[tuple[int, int], ...]:
        """The sizes of all layers' linear weights that a checkpoint in 4 bits has left in 16."""
        four_bit = self.four_bit
        if four_bit is None or not four_bit.skipped:
            return ()
        sizes = (*self.linears.values(),) * self.layers
        named = zip(self.linear_names, sizes, strict=True)
        return tuple(size for name, size in named if not four_bit.quantizes(name))

    @property
    def embedding_parameters(self) -> int:
        """The input embedding; the output head has as many, or is the same tensor where they are tied."""
        return self.vocab_size * self.hidden_size

    @property
    def parameter_count(self) -> int:
        """All parameters, tied ones once."""
        tables = 1 if self.tie_word_embeddings else 2
        return tables * self.embedding_parameters + self.layers * self.layer_linear_parameters + self.other_parameters

    @property
    def has_head_norms(self) -> bool:
        """Whether each head's queries and keys are normalized."""
        return self.family.head_norms != "none"

    @property
    def head_norm_sizes(self) -> tuple[int, int]:
        """The numbers of the norms of queries and of keys in one layer; 0 where heads are not normalized."""
        sizes = {"none": (0, 0), "of_each_head": (self.head_dim,) * 2, "of_all_heads": (self.query_size, self.key_size)}
        return sizes[self.family.head_norms]

    @property
    def is_fused(self) -> bool:
        """Whether `trainables.packed.fused` computes it; others go through transformers' own layers."""
        return not self.probed and self.counted is None

    def adapter_parameters(self, rank: int, target_modules: tuple[str, ...]) -> int:
        """Counts an adapter's trainable numbers: A is rank x in, B is out x rank at each target (Hu et al. 2021)."""
        sizes = [self.linears[name] for name in target_modules]
        return self.layers * rank * sum(inward + outward for inward, outward in sizes)

    def _norms(self) -> int:
        of_layer = len(self.family.norms.names) * self.hidden_size + sum(self.head_norm_sizes)
        return self.layers * of_layer + self.hidden_size

    def _biases(self, values: Mapping[str, Any]) -> int:
        return self.layers * sum(self.linears[name][1] for name in self.family.biased(values))


def _by_short_name(linears: Sequence[LayerLinear]) -> Mapping[str, tuple[int, int]]:
    """The sizes of one layer's linear layers."""
    short = [one.name.rpartition(".")[2] for one in linears]
    below = [one.name.split(".") for one in linears]
    numbers = [next(at for at, part in enumerate(parts) if part.isdecimal()) for parts in below]
    names = [
        name if short.count(name) == 1 else ".".join(parts[at + 1 :])
        for name, parts, at in zip(short, below, numbers, strict=True)
    ]
    return {name: (one.in_features, one.out_features) for name, one in zip(names, linears, strict=True)}
