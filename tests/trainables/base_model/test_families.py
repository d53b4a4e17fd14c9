"""The families' forms are those of transformers' own classes: defaults, nulls, and names of methods. Exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trainables.base_model.checks.configuration import OPTIONAL, configuration_faults
from trainables.base_model.families import FAMILIES, with_defaults
from trainables.base_model.files import inspect
from trainables.base_model.shape import ModelShape
from trainables.settings import BaseModelSettings

SIZES = {
    "vocab_size": 61, "hidden_size": 128, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 32,
    "pad_token_id": None,
}  # fmt: skip
UNUSED = ("attention_bias", "mlp_bias")  # which not every family reads; null makes sense in none


def builds(model_type: str, **values: Any) -> bool:
    """Whether transformers makes a model of this configuration, and none of its methods is hidden by a key."""
    try:
        config = AutoConfig.for_model(model_type, **values)
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    except Exception:  # whatever its classes raise
        return False
    return not any(callable(getattr(type(config), name, None)) for name in vars(config))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_is_not_said_is_transformers_own_default(model_type: str) -> None:
    config = AutoConfig.for_model(model_type)
    shape = ModelShape.from_config(with_defaults({**config.to_dict(), "model_type": model_type}))
    sizes = {name: getattr(config, name) for name in ("vocab_size", "hidden_size", "intermediate_size")}
    sizes |= {name: getattr(config, name) for name in ("num_hidden_layers", "num_attention_heads")}
    silent = with_defaults({"model_type": model_type, **sizes})
    assert ModelShape.from_config(silent) == shape
    assert silent["max_position_embeddings"] == config.max_position_embeddings
    assert silent.get("pad_token_id") == config.pad_token_id


@pytest.mark.parametrize("model_type", FAMILIES)
def test_null_is_refused_where_transformers_refuses_it(model_type: str) -> None:
    for key in (*OPTIONAL, *SIZES):
        values = {**SIZES, key: None}
        holds = not configuration_faults({"model_type": model_type, **values}, "config.json")
        assert holds == builds(model_type, **values) or (key in UNUSED and not holds), key


@pytest.mark.parametrize("model_type", FAMILIES)
def test_names_that_would_break_transformers_classes_are_refused(model_type: str) -> None:
    names = set(dir(type(AutoConfig.for_model(model_type)))) - {*OPTIONAL, *SIZES, "model_type", "rope_parameters"}
    for name in names:
        holds = not configuration_faults({"model_type": model_type, **SIZES, name: 5}, "config.json")
        assert not holds or builds(model_type, **{**SIZES, name: 5}), name


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("form", [{}, {"attention_bias": True, "mlp_bias": True}, {"tie_word_embeddings": True}])
def test_inspection_finds_what_transformers_own_model_has(
    model_type: str, form: dict[str, Any], tmp_path: Path
) -> None:
    values = {"model_type": model_type, **SIZES, **form}
    (tmp_path / "config.json").write_text(json.dumps(values))
    info = inspect(BaseModelSettings(str(tmp_path)), weights=False)
    config = AutoConfig.from_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")  # Gemma 2 has no other
    linear = [name for name, module in model.base_model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert info.shape.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    assert tuple(info.shape.linears) == tuple(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear))
    assert (info.shape.key_value_heads, info.max_positions) == (
        config.num_key_value_heads,
        config.max_position_embeddings,
    )
    assert info.shape.head_dim == (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    assert info.shape.tie_word_embeddings == config.tie_word_embeddings
