"""The licence of a base model, as its own files or its page on the hub name it. (no torch)"""

from __future__ import annotations

from pathlib import Path

import yaml

from trainables.base_model.gguf import read_gguf_licence
from trainables.base_model.location import ModelFiles


def base_licence(files: ModelFiles) -> str | None:
    """The licence's name, for example `apache-2.0`; None where nothing names one, or the hub cannot be asked."""
    if files.kind == "gguf":
        return read_gguf_licence(Path(files.path))
    return _of_hub(files) if files.kind == "hub" else _of_folder(Path(files.path))


def _of_folder(folder: Path) -> str | None:
    """From the front matter of the folder's README.md; the name of a licence file where it has none."""
    card = folder / "README.md"
    if card.is_file():
        parts = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
        named = _front_matter(parts[1]).get("license") if len(parts) == 3 and not parts[0].strip() else None
        if named:
            return str(named)
    return next((file.name for file in sorted(folder.glob("LICENSE*"))), None)


def _front_matter(text: str) -> dict[str, object]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def _of_hub(files: ModelFiles) -> str | None:
    from huggingface_hub import HfApi

    try:
        card = HfApi().model_info(files.path, revision=files.revision, timeout=10).card_data
    except Exception:  # offline, gated or gone: the card then says that the licence is not known
        return None
    licence = getattr(card, "license_name", None) or getattr(card, "license", None)
    return str(licence) if licence else None
