"""Refuses credentials in a study file, which is copied to results, jobs and reports."""

from __future__ import annotations

from typing import Any

from study.config.reader import Faults
from study.secrets import masked_place, masked_word

PROMPTS = "generation.prompts"
RULE = "must hold no credentials, since a study file is copied to results, jobs and reports"
REMEDY = (
    "Write it without them; keep them in the environment of the machines (HF_TOKEN, or the cloud's own, such as "
    "AWS_PROFILE or a role)."
)


def note_credentials(faults: Faults, values: Any, key: str = "") -> None:
    """Notes every text, and every key, that looks like a token, or a URL with a password or signature."""
    if isinstance(values, dict):
        for name, value in values.items():
            place = f"{key}.{name}" if key else str(name)
            if masked_place(str(name)) != str(name):
                faults.add(place, value, RULE, REMEDY)
            note_credentials(faults, value, place)
    elif isinstance(values, list):
        for index, value in enumerate(values):
            note_credentials(faults, value, f"{key}.{index}")
    elif isinstance(values, str) and _shown(key, values) != values:
        faults.add(key, values, RULE, REMEDY)


def _shown(key: str, text: str) -> str:
    """What may be shown of a value; prompts are data, which may speak of a password or a token."""
    return masked_place(text) if key.startswith(PROMPTS) else masked_word(text)
