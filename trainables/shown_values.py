"""Shows values of users' files in messages: on one line, without control characters, shortened."""

from __future__ import annotations

import json
from typing import Any

SHOWN_CHARACTERS = 80
SHOWN_PATH_CHARACTERS = 300


def shown(value: Any) -> str:
    """Returns a value as JSON on one line, shortened in its middle; as Python writes it where JSON cannot."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return shortened(text)


def shortened(text: str, length: int = SHOWN_CHARACTERS) -> str:
    """Returns the text on one line without control characters, shortened in its middle where it is longer."""
    if len(text) > length:
        text = f"{text[: length - length // 4]} … {text[-length // 4 :]}"
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
