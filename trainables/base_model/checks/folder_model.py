"""Checks a model's folder as a whole: its kind, configuration, weights' headers, and git-lfs pointers in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainables.base_model.checks.configuration import configuration_faults
from trainables.base_model.checks.contents import pointers
from trainables.base_model.checks.faults import BaseModelError, ModelFault, raise_any
from trainables.base_model.checks.folders import CONFIG, folder_fault, generation_fault, read_configuration
from trainables.base_model.checks.probed_models import probed_faults, type_fault
from trainables.base_model.checks.quantization import quantization_faults
from trainables.base_model.checks.weight_files import has_weights, weights_faults
from trainables.base_model.families import FAMILIES

SMALL_ENDINGS = (".json", ".jinja", ".model", ".txt")


def folder_configuration(folder: Path, name: str) -> dict[str, Any]:
    """Reads and checks the folder's config.json; `name` is what the user calls the model.

    Raises BaseModelError with every fault, for what is no dense decoder, in 16 bits or NF4.
    """
    kind = folder_fault(folder)
    raise_any([kind] if kind else [])
    values, faults = _configuration(folder, name)
    raise_any(faults)
    return values


def folder_faults(folder: Path, weights: bool) -> list[ModelFault]:
    """Returns everything that is wrong with a model's folder, from headers and configurations.

    Without `weights` the folder may lack them altogether; those which are there are checked still.
    """
    kind = folder_fault(folder)
    if kind is not None:
        return [kind]
    small = pointers(sorted(path for path in folder.iterdir() if path.name.endswith(SMALL_ENDINGS)))
    values, faults = (None, []) if _is_pointer(small, folder) else _configuration(folder, str(folder))
    generation = [] if small else [generation_fault(folder)]
    return [
        *small,
        *faults,
        *(fault for fault in generation if fault),
        *_weights(folder, None if faults else values, weights),
    ]


def _weights(folder: Path, values: Mapping[str, Any] | None, needed: bool) -> list[ModelFault]:
    try:
        there = has_weights(folder)
    except BaseModelError as error:
        return list(error.faults)
    return weights_faults(folder, values) if needed or there else []


def _is_pointer(small: list[ModelFault], folder: Path) -> bool:
    return bool(small) and bool(pointers([folder / CONFIG]))


def _configuration(folder: Path, name: str) -> tuple[dict[str, Any], list[ModelFault]]:
    file = str(folder / CONFIG)
    values = read_configuration(folder)
    if isinstance(values, ModelFault):
        return {}, [values]
    other = list(_other_models(values, file, name))
    return values, other or (configuration_faults if values["model_type"] in FAMILIES else probed_faults)(values, file)


def _other_models(values: Mapping[str, Any], file: str, name: str) -> Iterator[ModelFault]:
    kind = values.get("model_type")
    if fault := type_fault(values, file, name):
        yield fault
        return
    architectures = values.get("architectures") or ["ForCausalLM"]
    if kind in FAMILIES and (
        not isinstance(architectures, list) or not any(str(one).endswith("ForCausalLM") for one in architectures)
    ):
        rule = "the base model must be a causal language model"
        yield ModelFault(
            file, "architectures", architectures, rule, "Choose a model whose architecture ends in ForCausalLM."
        )
    yield from quantization_faults(values, file, name)
