"""Loads a model from a folder of safetensors; what is broken or incomplete is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from trainables.base_model.checks.faults import BaseModelError

Places = Mapping[str, Any]  # transformers' device map: names of modules to devices

_UNREADABLE = (OSError, ValueError, KeyError, SafetensorError)  # not RuntimeError: out of memory is one


def load_weights(folder: Path, places: Places, **options: Any) -> PreTrainedModel:
    """Loads a model onto `places`; `options` go to transformers' `from_pretrained`.

    Raises BaseModelError for what cannot be read or is not whole.
    """
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            device_map=dict(places),
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            attention_dropout=0.0,  # it has no seed of a trial's own; an adapter's dropout is lora_dropout
            **options,
        )
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"the base model's files must be whole; those in {folder} cannot be read: {reason}. Get them again."
        ) from error
    if report["missing_keys"]:  # they would stay random
        raise BaseModelError(
            f"the base model's weights must be complete; {folder} lacks {len(report['missing_keys'])} of them, such as "
            f"{min(report['missing_keys'])!r}. Get the whole model."
        )
    return model
