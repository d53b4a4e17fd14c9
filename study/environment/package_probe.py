"""Tries out the packages of this machine: `python -m study.environment.package_probe [--ray] MODULE …`.

`doctor` runs it in a process of its own, since a broken package may end it. Each finding is one line of JSON, flushed,
so that what came before an early end is known. Nothing is imported by name: what is missing must not stop the rest.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from study.secrets import masked

REASON_CHARACTERS = 300


def main(arguments: Sequence[str]) -> None:
    """Imports the modules, then tries NF4, CUDA and, where asked for, Ray."""
    modules = [argument for argument in arguments if not argument.startswith("--")]
    for module in modules:
        _try(module, partial(_import, module))
    if "torch" in modules:
        _try("cuda", cuda_facts)
    if {"torch", "bitsandbytes"} <= set(modules):
        _try("nf4", quantize_nf4)
    if "--ray" in arguments:
        _try("ray cluster", start_ray)


def _import(module: str) -> dict[str, Any]:
    importlib.import_module(module)
    return {}


def cuda_facts() -> dict[str, Any]:
    """Returns what torch knows of CUDA: the version it was built for, and the cards it can use."""
    torch = importlib.import_module("torch")
    there = torch.cuda.is_available()
    count = torch.cuda.device_count() if there else 0
    return {
        "built_for": torch.version.cuda,
        "available": there,
        "cards": [torch.cuda.get_device_name(index) for index in range(count)],
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def quantize_nf4() -> dict[str, Any]:
    """Quantizes and dequantizes 64 numbers, on the card where there is one, and returns that device."""
    torch, functional = importlib.import_module("torch"), importlib.import_module("bitsandbytes.functional")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    numbers = torch.linspace(-1.0, 1.0, 64, device=device)
    packed, state = functional.quantize_4bit(numbers, blocksize=64, quant_type="nf4")
    error = (functional.dequantize_4bit(packed, state) - numbers).abs().max().item()
    if not error < 0.2:  # NF4's widest gap is 0.304, between -1 and -0.696
        raise ArithmeticError(f"NF4 must come within 0.2 of numbers from -1 to 1; the error is {error}")
    return {"device": device}


def start_ray() -> dict[str, Any]:
    """Joins the Ray cluster that is there, or starts one and ends it again; returns its address and resources."""
    ray = importlib.import_module("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    ray.init(**options, namespace=f"lora-frontier-doctor-{os.getpid()}")
    try:
        resources = ray.cluster_resources()
        return {"address": os.environ.get("RAY_ADDRESS"), "cpus": resources.get("CPU"), "gpus": resources.get("GPU", 0)}
    finally:
        ray.shutdown()


def _try(what: str, function: Callable[[], dict[str, Any]]) -> None:
    """Says that a try begins, and how it ended."""
    _say({"what": what, "begun": True})
    try:
        _say({"what": what, "error": None, **function()})
    except BaseException as error:  # a package may raise anything, SystemExit included
        reason = " ".join(masked(f"{type(error).__name__}: {error}").split())  # before it is cut
        _say({"what": what, "error": reason[:REASON_CHARACTERS]})


def _say(finding: dict[str, Any]) -> None:
    print(json.dumps(finding), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
