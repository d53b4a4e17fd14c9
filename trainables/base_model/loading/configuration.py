"""Builds transformers' configuration of a folder's model, as it is loaded: without dropout of its own."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from transformers import AutoConfig, PretrainedConfig

from trainables.base_model.checks.quantization import COMPUTE_DTYPE, HEAD_MODULE, KEY, SKIPPED

_DROPOUT = re.compile(r"drop_?out|pdrop|layerdrop")  # in `attention_dropout`, `resid_pdrop`, `hidden_dropout_prob`, ...


def folder_config(folder: Path, dtype: torch.dtype | None = None) -> PretrainedConfig:
    """Returns the configuration of the model in the folder, every dropout in it 0.

    A base model's dropout has no seed of a trial's own; an adapter's dropout is `lora_dropout`. A checkpoint in 4 bits
    computes in `dtype`, where one is given, and not in its maker's.
    """
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    config.name_or_path = str(folder)
    _turn_off_dropout(config)
    quantization = getattr(config, KEY, None)
    if dtype is not None and isinstance(quantization, dict):
        quantization[COMPUTE_DTYPE] = str(dtype).removeprefix("torch.")
        if quantization.get(SKIPPED) is not None:  # else transformers finds the head by itself
            quantization[SKIPPED] = sorted({*quantization[SKIPPED], HEAD_MODULE})
    return config


def _turn_off_dropout(config: PretrainedConfig) -> None:
    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            _turn_off_dropout(value)
        elif isinstance(value, float | int) and not isinstance(value, bool) and _DROPOUT.search(name):
            setattr(config, name, type(value)(0))  # configurations check their types
