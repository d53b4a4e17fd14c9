"""Probes a configuration without a form in a process of its own, once: facts are kept in the user's cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trainables
from trainables.base_model.probe.facts import DecoderFacts
from trainables.protocol import ENGINE_VERSION
from trainables.user_cache import cached_folder, digest

FORM = 2  # part of the cache's key: raise it when facts change
SECONDS = 300.0  # a busy machine imports transformers in half a minute, and counts a large model in one
FACTS = "facts.json"
PROBE = "trainables.base_model.probe.look"
_UNREAD = (  # how weights are kept, and where they came from, changes no fact
    "_name_or_path", "name_or_path", "auto_map", "transformers_version", "torch_dtype", "dtype", "quantization_config",
)  # fmt: skip


class ProbeError(ValueError):
    """A model that cannot be trained here; `remedy` is what to do instead."""

    def __init__(self, fault: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(fault)


def probe(values: Mapping[str, Any]) -> DecoderFacts:
    """Returns the facts of a configuration's model, found by transformers on the meta device; no code but its own.

    Raises ProbeError for what it cannot build, what is no causal decoder, and layers that are not linear.
    """
    told = json.dumps({key: value for key, value in values.items() if key not in _UNREAD}, sort_keys=True)
    answer = _answer(told)
    if "fault" in answer:
        raise ProbeError(answer["fault"], answer["remedy"])
    return DecoderFacts.from_json(answer["facts"])


@lru_cache(maxsize=8)
def _answer(told: str) -> Mapping[str, Any]:
    versions = {name: version(name) for name in ("torch", "transformers")}
    key = digest({"configuration": told, "form": FORM, "engine": ENGINE_VERSION, **versions})
    try:
        folder = cached_folder("probes", key, lambda folder: _write(told, folder))
        return _read(folder)
    except OSError:  # the cache cannot be written
        with TemporaryDirectory() as name:
            _write(told, Path(name))
            return _read(Path(name))


def _read(folder: Path) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return answer


def _write(told: str, folder: Path) -> None:
    root = str(Path(trainables.__file__).parents[1])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    own = {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    kind = json.loads(told)["model_type"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", PROBE], input=told, capture_output=True, text=True, timeout=SECONDS, check=False,
            env={**os.environ, **own},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        fault = f"{kind}: transformers has not built it within {SECONDS:g} s"
        raise ProbeError(fault, "Check the sizes in config.json; on a busy machine, try again.") from None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
        raise ProbeError(f"{kind}: transformers failed at building it ({reason})", "Choose another model.")
    json.loads(lines[-1])
    (folder / FACTS).write_text(lines[-1], encoding="utf-8")
