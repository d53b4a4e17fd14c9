"""Loads a model from a folder of safetensors; what is broken or incomplete is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from trainables.base_model.attention import implementation
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.loading.configuration import folder_config
from trainables.base_model.loading.direct import load_directly, quantize_directly, quantize_loaded
from trainables.base_model.loading.moving import move, spread
from trainables.base_model.loading.placement import Placement, Places
from trainables.base_model.loading.skeleton import compute_in

log = logging.getLogger(__name__)

# What transformers raises of files and configurations; not RuntimeError: out of memory is one.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AssertionError, SafetensorError)


def load_weights(
    folder: Path, placement: Placement, dtype: torch.dtype | None = None, quantization: BitsAndBytesConfig | None = None
) -> PreTrainedModel:
    """Loads a model to where it belongs, in `dtype` or the type that its configuration names; quantizes it if asked to.

    The blocks of layers that wait in host memory are in `placement`. Raises BaseModelError for what cannot be read or
    is not whole, and where host memory has no room.
    """
    placement.blocks.clear()
    try:
        direct = placement.at_once or placement.offload.streams
        model = _directly(folder, placement, dtype, quantization) if direct else None
        return model or _by_transformers(folder, placement, dtype, quantization)
    except BaseModelError:
        raise
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"the base model's files must be whole; those in {folder} cannot be read: {reason}. Get them again."
        ) from error


def _directly(
    folder: Path, placement: Placement, dtype: torch.dtype | None, quantization: BitsAndBytesConfig | None
) -> PreTrainedModel | None:
    try:
        if quantization is None:
            model = load_directly(folder, placement, dtype)
        else:
            dtype = dtype or quantization.bnb_4bit_compute_dtype
            model = quantize_directly(folder, placement, dtype, quantization)
    except (AttributeError, ImportError, TypeError) as error:  # another version of transformers may build otherwise
        log.warning("The model is loaded by transformers, which is slower: %s: %s", type(error).__name__, error)
        placement.blocks.clear()
        return None
    return model and spread(model, placement)


def _by_transformers(
    folder: Path, placement: Placement, dtype: torch.dtype | None, quantization: BitsAndBytesConfig | None
) -> PreTrainedModel:
    """Loads what transformers has to convert, or to spread over several devices.

    Where a part waits in host memory, the whole model is loaded there first: host memory has to hold it whole, in 16
    bits where it is quantized here, until its layers have moved on, one by one.
    """
    if not placement.offload.streams:
        return _from_pretrained(folder, placement.places, dtype, quantization)
    if quantization is None:
        model = _from_pretrained(folder, {"": "cpu"}, dtype, None)
        move(model, placement)
    else:
        source = _from_pretrained(folder, {"": "cpu"}, dtype or quantization.bnb_4bit_compute_dtype, None)
        model = quantize_loaded(folder, source, placement, quantization)
    return spread(model, placement)


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
