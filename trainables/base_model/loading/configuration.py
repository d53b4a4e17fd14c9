"""Builds transformers' configuration of a folder's model, as it is loaded: without dropout of its own."""

from __future__ import annotations

import re
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

_DROPOUT = re.compile(r"drop_?out|pdrop|layerdrop")  # in `attention_dropout`, `resid_pdrop`, `hidden_dropout_prob`, ...


def folder_config(folder: Path) -> PretrainedConfig:
    """Returns the configuration of the model in the folder, every dropout in it 0.

    A base model's dropout has no seed of a trial's own; an adapter's dropout is `lora_dropout`.
    """
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    config.name_or_path = str(folder)
    _turn_off_dropout(config)
    return config


def _turn_off_dropout(config: PretrainedConfig) -> None:
    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            _turn_off_dropout(value)
        elif isinstance(value, float | int) and not isinstance(value, bool) and _DROPOUT.search(name):
            setattr(config, name, type(value)(0))  # configurations check their types
