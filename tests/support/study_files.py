"""A small valid study file, and others that differ from it in single values."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.strict_yaml import strict_text

ABSENT = object()  # as a change: the key is left out
SPACE: dict[str, Any] = {
    "precision": {"choice": ["fp16", "nf4"]},
    "rank": {"choice": [8, 64]},
    "target_modules": {"choice": ["q_v", "all_linear"]},
    "lora_alpha": {"rank_times": 2},
    "lora_dropout": 0.05,
    "learning_rate": 2e-4,
}
STUDY: dict[str, Any] = {
    "name": "small",
    "base_model": {"path": "meta-llama/Llama-3.2-1B"},
    "dataset": {"name": "pubmedqa", "source": "sample"},
    "space": SPACE,
    "objectives": [
        {"metric": "perplexity", "direction": "minimize", "reference": 12.0},
        {"metric": "peak_memory_bytes", "direction": "minimize", "reference": "14.56 GiB"},
    ],
}


def changed(changes: Mapping[str, Any], study: Mapping[str, Any] = STUDY) -> dict[str, Any]:
    """The study with other values at dotted keys (`objectives.0.metric`); ABSENT leaves a key out."""
    result = copy.deepcopy(dict(study))
    for key, value in changes.items():
        *path, last = key.split(".")
        place: Any = result
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if value is ABSENT:
            del place[last]
        elif isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    return result


def write_study(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """The changed study as a file of that folder."""
    file = folder / "study.yaml"
    file.write_text(strict_text(changed(changes or {})), encoding="utf-8")
    return file
