"""Checks configurations of families without a form: what transformers' own class makes of them decides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainables.base_model.checks.configuration import (
    ELSEWHERE,
    METHODS,
    MOST_LAYERS,
    MOST_PARAMETERS,
    OPTIONAL,
    PRIVATE,
    REQUIRED,
)
from trainables.base_model.checks.faults import ModelFault
from trainables.base_model.checks.rope import Broken
from trainables.base_model.checks.values import is_whole
from trainables.base_model.families import FAMILIES
from trainables.base_model.probe.probe import ProbeError, probe
from trainables.shown_values import shortened

AGAIN = "Take config.json from where the model was published."
_NAME = re.compile(r"[a-z0-9][\w.-]{0,63}", re.ASCII | re.IGNORECASE)
_OTHER_PARTS = ("vision_config", "audio_config", "text_config", "speech_config", "image_config", "video_config")


def type_fault(values: Mapping[str, Any], file: str, name: str) -> ModelFault | None:
    """Returns why a configuration's type is none to train, as far as its text says; None where it may be."""
    kind = values.get("model_type")
    parts = [key for key in _OTHER_PARTS if isinstance(values.get(key), dict)]
    if not isinstance(kind, str) or not _NAME.fullmatch(kind):
        of_type = f"{name} is of the type {shortened(repr(kind))}"
        rule = f"the base model must be a decoder of transformers ({', '.join(FAMILIES)} or another); {of_type}"
        return ModelFault(file, "model_type", kind, rule, "Choose another model.")
    if parts and kind not in FAMILIES:
        rule = f"the base model must be a language model alone; {name} is made of several ({', '.join(parts)})"
        remedy = "Give its language model by itself, saved with save_pretrained, or choose a model of text."
        return ModelFault(file, "model_type", kind, rule, remedy)
    return None


def probed_faults(values: Mapping[str, Any], file: str) -> list[ModelFault]:
    """Returns what is wrong with a configuration without a form: sizes without sense, or what its probe found."""
    broken = [*_keys(values)]
    if broken:
        return [ModelFault(file, key, value, rule, AGAIN) for key, value, rule in broken]
    kind = values["model_type"]
    try:
        count = probe(values).parameter_count
    except ProbeError as error:
        rule = f"the base model must be a decoder whose layers are linear; {error}"
        return [ModelFault(file, "model_type", kind, rule, error.remedy)]
    if count <= MOST_PARAMETERS:
        return []
    rule = f"must give a model of at most {MOST_PARAMETERS:,} parameters; it has {count:,}"
    return [ModelFault(file, "model_type", kind, rule, AGAIN)]


def _keys(values: Mapping[str, Any]) -> Iterator[Broken]:
    for key, rule in {**REQUIRED, "architectures": OPTIONAL["architectures"]}.items():
        if key in values and (broken := rule(values[key])):
            yield key, values[key], broken
    for key, value in values.items():
        if key in METHODS or PRIVATE.fullmatch(key):
            yield key, value, "must not be a key: transformers has a method of that name"
        elif key not in REQUIRED and "layer" in key and is_whole(value) and value > MOST_LAYERS:
            yield key, value, f"must be at most {MOST_LAYERS:,}"
        elif value and key in ELSEWHERE:
            yield key, value, f"must be left out: {ELSEWHERE[key]}"
