"""Tiny checkpoints in NF4, saved by transformers and bitsandbytes as those on the hub are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

CONFIG, WEIGHTS, KEY = "config.json", "model.safetensors", "quantization_config"


def save_four_bit(
    source: Path,
    folder: Path,
    double: bool = True,
    compute: torch.dtype = torch.bfloat16,
    skipped: list[str] | None = None,
    kind: str = "nf4",
    **saving: Any,
) -> Path:
    """Quantizes the model in `source` by transformers and saves it, tokenizer and all, in `folder`."""
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=skipped,
    )
    shutil.copytree(source, folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    model = AutoModelForCausalLM.from_pretrained(
        str(source), quantization_config=quantization, device_map={"": "cpu"}, dtype=compute
    )
    model.save_pretrained(str(folder), **saving)
    return folder


def change_quantization(folder: Path, **changes: Any) -> Path:
    """Changes keys of the checkpoint's `quantization_config`; None takes a key out."""
    values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for key, value in changes.items():
        values[KEY][key] = value
        if value is None:
            del values[KEY][key]
    (folder / CONFIG).write_text(json.dumps(values), encoding="utf-8")
    return folder
