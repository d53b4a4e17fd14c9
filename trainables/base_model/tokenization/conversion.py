"""Has transformers convert a tokenizer once, and keeps what comes of it in the user's cache for the next time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.tokenization.text_tokenizer import TextTokenizer
from trainables.user_cache import cached_folder, digest, file_sha256

FORM = 1  # part of the cache's key: raise it when what is kept changes
NAMES = ("bos_token", "eos_token", "unk_token")
TOKENIZER, SPECIALS = "tokenizer.json", "special_tokens.json"


def converted(files: Sequence[Path], load: Callable[[], Any]) -> TextTokenizer:
    """Returns what transformers makes of a tokenizer's `files` by `load`, made where it was not kept yet.

    Raises BaseModelError for a tokenizer that does not know where its tokens lie, and what `load` raises.
    """
    hashes = {path.name: file_sha256(path) for path in files}
    versions = {name: version(name) for name in ("transformers", "tokenizers")}
    key = digest({"files": hashes, "form": FORM, **versions})
    try:
        return _read(cached_folder("tokenizers", key, lambda folder: _write(load(), folder)))
    except OSError:  # the cache cannot be written
        with TemporaryDirectory() as folder:
            _write(load(), Path(folder))
            return _read(Path(folder))


def _write(tokenizer: Any, folder: Path) -> None:
    if not tokenizer.is_fast:
        raise BaseModelError(
            "the base model's tokenizer must be a fast one (tokenizer.json), which knows where each token lies in the "
            f"text; it is a {type(tokenizer).__name__}. Save it as tokenizer.json, or copy that file from the model."
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    forced = getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    clean_up = tokenizer.clean_up_tokenization_spaces and (forced or type(backend.model).__name__ != "BPE")
    specials = {**{name: getattr(tokenizer, name) for name in NAMES}, "clean_up": bool(clean_up)}
    (folder / TOKENIZER).write_text(backend.to_str(), encoding="utf-8")
    (folder / SPECIALS).write_text(json.dumps(specials), encoding="utf-8")


def _read(folder: Path) -> TextTokenizer:
    backend = Tokenizer.from_file(str(folder / TOKENIZER))
    return TextTokenizer(backend, **json.loads((folder / SPECIALS).read_text(encoding="utf-8")))
