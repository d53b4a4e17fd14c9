"""Checks the environment's variables that a study depends on: cards, threads, folders, proxies, Ray's settings."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from study.errors import ConfigFault

_CARD = re.compile(r"[0-9]{1,3}|(GPU|MIG)-[0-9A-Za-z/-]+")
NO_CARDS = ("", "-1", "none", "void", "nodevfiles")
_THREADS = re.compile(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FOLDERS = ("HOME", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "LORA_FRONTIER_CACHE")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
PROXY_SCHEMES = ("", "http", "https", "socks4", "socks5", "socks5h")
_RAY_NUMBER = re.compile(r"RAY_\w+_(ms|s|seconds|bytes|mb|gb|threads|port|retries|threshold|fraction)", re.IGNORECASE)
_RAY_PARTS = re.compile(r"RAY_\w+_(threshold|fraction)", re.IGNORECASE)  # from 0 to 1


def variable_faults(environment: Mapping[str, str]) -> list[ConfigFault]:
    """Returns what is wrong with the variables: each fault with the variable in place of a file."""
    return [
        *_card_faults(environment), *_thread_faults(environment), *_folder_faults(environment),
        *_proxy_faults(environment), *_ray_faults(environment),
    ]  # fmt: skip


def _fault(name: str, value: str, rule: str, remedy: str) -> ConfigFault:
    return ConfigFault(name, "", value, rule, remedy)


def _card_faults(environment: Mapping[str, str]) -> list[ConfigFault]:
    name = "CUDA_VISIBLE_DEVICES"
    value = environment.get(name)
    if value is None or value.strip().lower() in NO_CARDS:
        return []
    cards = value.split(",")
    if all(map(_CARD.fullmatch, cards)) and len(set(cards)) == len(cards):
        return []
    rule = "must name cards, each once, by number or UUID, with commas and nothing else between them"
    return [_fault(name, value, rule, "Write for example 0,1, or unset it to use all cards.")]


def _thread_faults(environment: Mapping[str, str]) -> list[ConfigFault]:
    rule, remedy = "must be a number of threads from 1 to 9999", "Write for example 2, or unset it."
    there = [(name, environment[name].strip()) for name in THREADS if environment.get(name)]
    return [_fault(name, value, rule, remedy) for name, value in there if not _THREADS.fullmatch(value)]


def _folder_faults(environment: Mapping[str, str]) -> list[ConfigFault]:
    faults = []
    for name in FOLDERS:
        value = environment.get(name)
        if not value:
            continue
        try:
            place = Path(value).expanduser()
        except RuntimeError:  # `~somebody` of nobody
            place = Path(value)
        wrong = next((one for one in (place, *place.parents) if os.path.lexists(one) and not one.is_dir()), None)
        if wrong is not None:
            rule = f"must be a folder; {'it' if wrong == place else wrong} is none"
            faults.append(_fault(name, value, rule, "Name a folder, or unset it."))
    return faults


def _proxy_faults(environment: Mapping[str, str]) -> list[ConfigFault]:
    return [
        _fault(name, value, "must be a proxy's address", "Write for example http://proxy.example:3128, or unset it.")
        for name, value in sorted(environment.items())
        if name.lower() in PROXIES and value and not _is_proxy(value)
    ]


def _is_proxy(text: str) -> bool:
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        return parts.scheme in PROXY_SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _ray_faults(environment: Mapping[str, str]) -> list[ConfigFault]:
    """Ray's C++ ends the process over a setting that is no number, with a page of its own stack."""
    faults = []
    for name, value in sorted(environment.items()):
        if _RAY_NUMBER.fullmatch(name):
            most = 1.0 if _RAY_PARTS.fullmatch(name) else 2.0**63
            if not _is_number(value, most):
                rule = f"must be a number from 0 to {most:g}" if most == 1.0 else "must be a number, -1 or more"
                faults.append(_fault(name, value, rule, "Correct it, or unset it."))
    return faults


def _is_number(text: str, most: float) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and (0 if most == 1.0 else -1) <= value <= most
