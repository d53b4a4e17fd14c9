"""Loads a base model's tokenizer, and settles which tokens begin and end a row.

The tokenizer's own words come first. Where it names no EOS, the first id in the vocabulary of `config.json`, else of
`generation_config.json`, is taken. BOS is taken from there only where the tokenizer names neither BOS nor EOS: one that
names EOS alone (Qwen's) begins rows with no token, whatever the configuration says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.checks.gguf_model import read_gguf_config
from trainables.base_model.files import readable_folder
from trainables.base_model.gguf import read_gguf_tokenizer
from trainables.base_model.location import locate
from trainables.base_model.tokenization.conversion import converted
from trainables.base_model.tokenization.folder import read_folder_tokenizer
from trainables.base_model.tokenization.gguf import build_gguf_tokenizer
from trainables.base_model.tokenization.text_tokenizer import TextTokenizer
from trainables.base_model.tokenizer_limits import FILES, check_files, check_growth, check_probe
from trainables.guarded_files import FileRefusedError, read_json
from trainables.settings import BaseModelSettings

CONFIGURATIONS = ("config.json", "generation_config.json")
OWN_FILES = ("tokenizer_config.json", "special_tokens_map.json")


def load_tokenizer(settings: BaseModelSettings) -> TextTokenizer:
    """Reads the base model's own tokenizer, with the BOS and EOS that rows are given (None: none).

    Its post-processor is taken off: BOS and EOS are added by one rule (`trainables.dataset.tokens`), and it may move
    the offsets of tokens that begin with spaces. Raises BaseModelError where there is no fast tokenizer, where its
    tokens hang on chance, and where it would take time or memory without bound.
    """
    files = locate(settings)
    try:
        folder = None if files.kind == "gguf" else readable_folder(files)
        tokenizer = _from_gguf(Path(files.path)) if folder is None else _from_folder(folder)
        _check(tokenizer, settings.path)
        tokenizer = _settled(tokenizer, folder, Path(files.path))
    except BaseModelError:
        raise
    except FileRefusedError as error:
        raise BaseModelError(f"the tokenizer's files of {settings.path!r} must be readable. {error}") from error
    except Exception as error:  # the tokenizers library raises plain Exception
        raise _unreadable(settings.path, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the tokenizers library's own, which is no Exception
            raise
        raise _unreadable(settings.path, error) from error
    tokenizer.backend.post_processor = None
    check_probe(tokenizer, settings.path)
    return tokenizer


def _from_folder(folder: Path) -> TextTokenizer:
    check_files(folder)
    return read_folder_tokenizer(folder) or _converted_folder(folder)


def _converted_folder(folder: Path) -> TextTokenizer:
    def load() -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)

    return converted([folder / name for name in FILES if (folder / name).exists()], load)


def _from_gguf(path: Path) -> TextTokenizer:
    return build_gguf_tokenizer(path) or converted([path], lambda: read_gguf_tokenizer(path))


def _unreadable(path: str, error: BaseException) -> BaseModelError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return BaseModelError(
        f"the base model {path!r} must have a tokenizer beside it (tokenizer.json); it cannot be read: {reason}. "
        "Copy the model's tokenizer there."
    )


def _check(tokenizer: TextTokenizer, path: str) -> None:
    """Raises BaseModelError for a tokenizer that makes texts too long, or whose tokens hang on chance."""
    check_growth(tokenizer.backend, path)
    if dropout := getattr(tokenizer.backend.model, "dropout", None):
        raise BaseModelError(
            f"the tokenizer of {path!r} must give a text the same tokens each time; its tokenizer.json sets "
            f"model.dropout to {dropout}. Set it to null."
        )


def _settled(tokenizer: TextTokenizer, folder: Path | None, path: Path) -> TextTokenizer:
    """Gives the tokenizer the BOS and EOS that it lacks, and has both taken for special tokens."""
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    if eos is None:
        configured = _configured(folder) if folder else [(path, read_gguf_config(path))]
        if bos is None and not (folder and _says_no_bos(folder)):
            bos = _configured_token(tokenizer, configured, "bos_token_id")
        eos = _configured_token(tokenizer, configured, "eos_token_id")
    # One that its file lists as an ordinary added token would be found in texts that are to stay texts.
    named = [AddedToken(text, normalized=False) for text in (bos, eos) if text]
    tokenizer.backend.add_special_tokens(named)
    return replace(tokenizer, bos_token=bos, eos_token=eos)


def _configured(folder: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    paths = [folder / name for name in CONFIGURATIONS if (folder / name).exists()]
    found = [(path, read_json(path)) for path in paths]
    return [(path, values) for path, values in found if isinstance(values, dict)]


def _says_no_bos(folder: Path) -> bool:
    """Whether the tokenizer's own files say that it has no BOS, rather than not naming one."""
    found = [read_json(folder / name) for name in OWN_FILES if (folder / name).exists()]
    named = [values for values in found if isinstance(values, dict)]
    return any("bos_token" in values or values.get("add_bos_token") is False for values in named)


def _configured_token(
    tokenizer: TextTokenizer, configured: Sequence[tuple[Path, Mapping[str, Any]]], key: str
) -> str | None:
    """Returns the token of the first configuration that has `key`, a number or a list of them; None without one.

    Raises BaseModelError where none of its ids is in the vocabulary.
    """
    for place, values in configured:
        value = values.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        texts = [text for one in ids if (text := _token(tokenizer, one)) is not None]
        if texts:
            return texts[0]
        if ids:
            raise BaseModelError(
                f"{place}: {key} must be an id of the tokenizer's vocabulary, which names no such token itself; it is "
                f"{str(value)[:80]}. Correct it, or set it to null where the model has none."
            )
    return None


def _token(tokenizer: TextTokenizer, number: Any) -> str | None:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**32:
        return None
    text: str | None = tokenizer.backend.id_to_token(number)
    return text
