"""Bounds what a tokenizer may ask for: the size of its files, how it grows a text, and its time for one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainables.base_model.checks.faults import BaseModelError
from trainables.guarded_files import MIB, FileRefusedError, open_regular, parse_json

# The largest that Llama-like models come with are about 35 MB.
MOST_FILE_BYTES = 128 * MIB
FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json", "tekken.json",
    "config.json", "generation_config.json", "processor_config.json",
)  # fmt: skip
MOST_ADDED_TOKENS = 50_000  # a second to read; Gemma has 6,000
MOST_GROWTH = 100  # characters out of one; bytes as characters are 4
PROBE = "".join(map(chr, range(32, 127))) + "\n\n  a" + "a" * 64 + "1" * 32 + " " * 32 + "é漢🙂"
PROBE_SECONDS = 5.0
_READ_BYTES = MIB
_ADDED_KEY = b'"single_word"'


def check_files(folder: Path) -> None:
    """Raises FileRefusedError for a file of a tokenizer that is none, is too large, or lists tokens without end."""
    for name in FILES:
        path = folder / name
        if not path.exists() and not path.is_symlink():
            continue
        try:
            size = _size(path)
        except FileNotFoundError:  # a link into nowhere: transformers passes over it
            continue
        if size > MOST_FILE_BYTES:
            rule = f"A tokenizer's file must hold at most {MOST_FILE_BYTES // MIB} MiB"
            raise FileRefusedError(rule, f"{path} holds {size / MIB:,.0f} MiB", "Take the model's own file.")
    _check_added(folder / "tokenizer.json")


def _size(path: Path) -> int:
    with open_regular(path) as file:
        return file.seek(0, 2)


def _check_added(path: Path) -> None:
    if not path.exists():
        return
    # Each added token has this key once; reading the file as JSON would take as long as loading it.
    added = 0
    with open_regular(path) as file:
        rest = b""
        while part := file.read(_READ_BYTES):
            part = rest + part
            added += part.count(_ADDED_KEY)
            rest = part[1 - len(_ADDED_KEY) :]
    if added > MOST_ADDED_TOKENS:
        rule = f"A tokenizer must have at most {MOST_ADDED_TOKENS:,} added tokens"
        raise FileRefusedError(rule, f"{path} lists {added:,}", "Take the model's own tokenizer.json.")


def check_growth(backend: Any, path: str) -> None:
    """Raises BaseModelError where the steps before tokens, or after them, may make a text over 100 times as long."""
    encoding = _growth(_parts(backend.normalizer)) * _growth(_parts(backend.pre_tokenizer))
    for what, growth in (("normalizer and pre-tokenizer", encoding), ("decoder", _growth(_parts(backend.decoder)))):
        if growth > MOST_GROWTH:
            raise BaseModelError(
                f"a tokenizer's {what} must make a text at most {MOST_GROWTH} times as long; that of {path!r} can make "
                f"it {growth:.3g} times. Take the model's own tokenizer.json."
            )


def _parts(step: Any) -> Any:
    return {} if step is None else parse_json(step.__getstate__())


def _growth(step: Any) -> float:
    """Returns the most characters that a step of a tokenizer may make of one, its inner steps multiplied."""
    if isinstance(step, list):
        product = 1.0
        for one in step:
            product = min(product * _growth(one), 1e300)
        return product
    if not isinstance(step, Mapping):
        return 1.0
    inner = [value for value in step.values() if isinstance(value, list | Mapping)]
    return _own_growth(step) * _growth(inner)


def _own_growth(step: Mapping[str, Any]) -> float:
    kind = step.get("type")
    if kind == "ByteLevel":
        return 4.0  # the bytes of a character
    if kind == "Prepend":
        return 1.0 + max(0, len(str(step.get("prepend", ""))) - 1)
    if kind == "Replace":
        pattern, content = step.get("pattern"), len(str(step.get("content", "")))
        text = pattern.get("String") if isinstance(pattern, Mapping) else None
        # A regular expression may match at every character, or between any two.
        return max(1.0, content / len(text)) if text else 1.0 + content
    return 1.0


def check_probe(tokenizer: Any, path: str) -> None:
    """Raises BaseModelError for a tokenizer that finds no token in a text, or takes too long for one."""

    def probe() -> int:
        (encoding,) = tokenizer.encode([PROBE])
        tokenizer.decode(encoding.ids[:64])
        return len(encoding.ids)

    try:
        found = within(PROBE_SECONDS, probe)
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise BaseModelError(
            f"the tokenizer of {path!r} must tokenize and decode {len(PROBE)} characters within {PROBE_SECONDS:g} s; "
            f"it does not: {reason}. Take the model's own tokenizer.json."
        ) from error
    if not found:
        raise BaseModelError(
            f"the tokenizer of {path!r} must find tokens in a text; it finds none in one of {len(PROBE)} characters "
            "(is its vocabulary empty?). Take the model's own tokenizer.json."
        )


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """Returns what `work` returns. Raises TimeoutError where it takes longer, RuntimeError where a library panics.

    What cannot be interrupted is left behind in a thread that ends with the process.
    """
    found: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    start = time.monotonic()
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"it had not ended after {time.monotonic() - start:.1f} s")
    if failed:
        # A panic of the tokenizers library is no Exception.
        raise failed[0] if isinstance(failed[0], Exception) else RuntimeError(str(failed[0]))
    return found[0]
