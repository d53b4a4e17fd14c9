"""Loads a model from a folder of safetensors; what is broken or incomplete is refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from trainables.base_model.attention import implementation
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.loading.configuration import folder_config
from trainables.base_model.loading.direct import load_directly, quantize_directly
from trainables.base_model.loading.skeleton import compute_in

log = logging.getLogger(__name__)

Places = Mapping[str, Any]  # transformers' device map: names of modules to devices

# What transformers raises of files and configurations; not RuntimeError: out of memory is one.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AssertionError, SafetensorError)


def load_weights(
    folder: Path, places: Places, dtype: torch.dtype | None = None, quantization: BitsAndBytesConfig | None = None
) -> PreTrainedModel:
    """Loads a model onto `places`, in `dtype` or in the type that its configuration names; quantizes it if asked to.

    Raises BaseModelError for what cannot be read or is not whole.
    """
    try:
        at_once = list(places) == [""]
        model = _directly(folder, torch.device(places[""]), dtype, quantization) if at_once else None
        return model or _from_pretrained(folder, places, dtype, quantization)
    except BaseModelError:
        raise
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"the base model's files must be whole; those in {folder} cannot be read: {reason}. Get them again."
        ) from error


def _directly(
    folder: Path, device: torch.device, dtype: torch.dtype | None, quantization: BitsAndBytesConfig | None
) -> PreTrainedModel | None:
    try:
        if quantization is None:
            return load_directly(folder, device, dtype)
        return quantize_directly(folder, device, dtype or quantization.bnb_4bit_compute_dtype, quantization)
    except (AttributeError, ImportError, TypeError) as error:  # another version of transformers may build otherwise
        log.warning("The model is loaded by transformers, which is slower: %s: %s", type(error).__name__, error)
        return None


def _from_pretrained(
    folder: Path, places: Places, dtype: torch.dtype | None, quantization: BitsAndBytesConfig | None
) -> PreTrainedModel:
    """Loads what transformers has to convert, or to spread over several devices."""
    config = folder_config(folder, None if quantization else dtype)
    model, report = AutoModelForCausalLM.from_pretrained(
        str(folder),
        config=config,
        device_map=dict(places),
        dtype=dtype or "auto",
        attn_implementation=implementation(config),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        **({"quantization_config": quantization} if quantization else {}),  # None would hide the configuration's own
    )
    if report["missing_keys"]:  # they would stay random
        raise BaseModelError(
            f"the base model's weights must be complete; {folder} lacks {len(report['missing_keys'])} of them, such as "
            f"{min(report['missing_keys'])!r}. Get the whole model."
        )
    if dtype is not None:
        compute_in(model, dtype)
    return model
