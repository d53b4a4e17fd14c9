"""Quantizes a base model to NF4, and keeps the quantized weights in the user's cache for the next time.

NF4 with double quantization: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv 2305.14314.
"""

from __future__ import annotations

import gc
import importlib.metadata
import logging

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.files import BaseModelInfo, read_config, weights_folder
from trainables.base_model.loading.placement import Placement
from trainables.base_model.loading.writing import write_model
from trainables.base_model.location import locate
from trainables.base_model.weights import load_weights
from trainables.measure.process_memory import release_free_memory
from trainables.settings import BaseModelSettings
from trainables.user_cache import CacheEntry, digest

log = logging.getLogger(__name__)

_NOT_WEIGHTS = ("_name_or_path", "transformers_version", "use_cache")  # in a configuration, without effect on weights


def load_nf4(
    settings: BaseModelSettings,
    info: BaseModelInfo,
    dtype: torch.dtype,
    placement: Placement,
    kind: str,
    use_cache: bool,
) -> PreTrainedModel:
    """Loads the model in NF4 to where it belongs, which computes in `dtype`; `kind` is the devices' type.

    With `use_cache` quantized weights are taken from the cache, or put there; those of a checkpoint in NF4 are taken as
    they are. Raises BaseModelError as `load_weights`.
    """
    if info.shape.four_bit:
        return load_weights(weights_folder(locate(settings)), placement, dtype)
    if not use_cache:
        return _quantize(settings, dtype, placement)
    entry = CacheEntry("nf4", _nf4_key(settings, info, dtype, kind))
    model = _reload(entry, placement)
    if model is not None:
        return model
    with entry.lock():
        model = _reload(entry, placement)  # another process may have made it while we waited
        if model is None:
            model = _quantize(settings, dtype, placement)
            if _keep(entry, model, placement):
                del model
                placement.blocks.clear()
                _empty_caches(kind)
                model = _reload(entry, placement) or _quantize(settings, dtype, placement)
    return model


def _empty_caches(kind: str) -> None:
    """Gives back what quantizing has left between the weights.

    In their place those are read that were kept: they lie closely, as memory is predicted, and every start of a study
    then measures the same, whether it was the one that quantized or not.
    """
    gc.collect()
    release_free_memory()
    if kind == "cuda":
        torch.cuda.empty_cache()


def _nf4_key(settings: BaseModelSettings, info: BaseModelInfo, dtype: torch.dtype, kind: str) -> str:
    """Returns a key of all that quantized weights depend on: a reload takes quantization and compute type as saved."""
    config = read_config(locate(settings)).to_dict()
    return digest(
        {
            "weights": info.sha256,
            "config": {name: value for name, value in config.items() if name not in _NOT_WEIGHTS},
            "double_quantization": settings.double_quantization,
            "compute_dtype": str(dtype),
            "device": kind,
            "versions": [importlib.metadata.version(name) for name in ("bitsandbytes", "transformers")],
        }
    )


def _quantize(settings: BaseModelSettings, dtype: torch.dtype, placement: Placement) -> PreTrainedModel:
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=settings.double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )
    return load_weights(weights_folder(locate(settings)), placement, dtype=dtype, quantization=quantization)


def _reload(entry: CacheEntry, placement: Placement) -> PreTrainedModel | None:
    if not entry.intact():
        return None
    try:
        return load_weights(entry.folder, placement)
    except BaseModelError as error:
        log.warning("The quantized weights in the cache are made anew: %s", error)
        return None


def _keep(entry: CacheEntry, model: PreTrainedModel, placement: Placement) -> bool:
    try:
        with placement.shown():
            entry.fill(lambda folder: write_model(model, folder))
        return True
    except (OSError, ValueError) as error:  # the model is there all the same; the next load quantizes again
        log.warning("The quantized weights could not be kept in %s: %s", entry.folder, error)
        return False
