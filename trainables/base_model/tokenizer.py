"""Loads a base model's tokenizer, and settles which tokens begin and end a row.

The tokenizer's own words come first. Where it names no EOS, the first id in the vocabulary of `config.json`, else of
`generation_config.json`, is taken. BOS is taken from there only where the tokenizer names neither BOS nor EOS: one that
names EOS alone (Qwen's) begins rows with no token, whatever the configuration says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.checks.gguf_model import read_gguf_config
from trainables.base_model.files import readable_folder
from trainables.base_model.gguf import read_gguf_tokenizer
from trainables.base_model.location import locate
from trainables.base_model.tokenizer_limits import check_files, check_growth, check_probe
from trainables.guarded_files import FileRefusedError, read_json
from trainables.settings import BaseModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIGURATIONS = ("config.json", "generation_config.json")
OWN_FILES = ("tokenizer_config.json", "special_tokens_map.json")


def load_tokenizer(settings: BaseModelSettings) -> PreTrainedTokenizerBase:
    """Reads the base model's own tokenizer, with the BOS and EOS that rows are given (None: none).

    Its post-processor is taken off: BOS and EOS are added by one rule (`trainables.dataset.tokens`), and it may move
    the offsets of tokens that begin with spaces. Raises BaseModelError where there is no fast tokenizer, where its
    tokens hang on chance, and where it would take time or memory without bound.
    """
    files = locate(settings)
    try:
        folder = readable_folder(files)
        tokenizer = read_gguf_tokenizer(Path(files.path)) if folder is None else _from_folder(folder)
        _check(tokenizer, settings.path)
        _settle(tokenizer, folder, Path(files.path))
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
    tokenizer.backend_tokenizer.post_processor = None
    check_probe(tokenizer, settings.path)
    return tokenizer


def _from_folder(folder: Path) -> Any:
    from transformers import AutoTokenizer

    check_files(folder)
    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def _unreadable(path: str, error: BaseException) -> BaseModelError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return BaseModelError(
        f"the base model {path!r} must have a tokenizer beside it (tokenizer.json); it cannot be read: {reason}. "
        "Copy the model's tokenizer there."
    )


def _check(tokenizer: Any, path: str) -> None:
    """Raises BaseModelError for a tokenizer that cannot say where its tokens lie, or whose tokens hang on chance."""
    if not tokenizer.is_fast:
        raise BaseModelError(
            f"the tokenizer of {path!r} must be a fast one (tokenizer.json), which knows where each token lies in the "
            f"text; it is a {type(tokenizer).__name__}. Save it as tokenizer.json, or copy that file from the model."
        )
    check_growth(tokenizer.backend_tokenizer, path)
    if getattr(tokenizer.backend_tokenizer.model, "dropout", None):
        raise BaseModelError(
            f"the tokenizer of {path!r} must give a text the same tokens each time; its tokenizer.json sets "
            f"model.dropout to {tokenizer.backend_tokenizer.model.dropout}. Set it to null."
        )


def _settle(tokenizer: Any, folder: Path | None, path: Path) -> None:
    """Gives the tokenizer the BOS and EOS that it lacks, and has both taken for special tokens."""
    from tokenizers import AddedToken

    if tokenizer.eos_token_id is None:
        configured = _configured(folder) if folder else [(path, read_gguf_config(path))]
        if tokenizer.bos_token_id is None and not (folder and _says_no_bos(folder)):
            tokenizer.bos_token = _configured_token(tokenizer, configured, "bos_token_id")
        tokenizer.eos_token = _configured_token(tokenizer, configured, "eos_token_id")
    # One that its file lists as an ordinary added token would be found in texts that are to stay texts.
    named = [str(text) for text in (tokenizer.bos_token, tokenizer.eos_token) if text]
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in named])


def _configured(folder: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    paths = [folder / name for name in CONFIGURATIONS if (folder / name).exists()]
    found = [(path, read_json(path)) for path in paths]
    return [(path, values) for path, values in found if isinstance(values, dict)]


def _says_no_bos(folder: Path) -> bool:
    """Whether the tokenizer's own files say that it has no BOS, rather than not naming one."""
    found = [read_json(folder / name) for name in OWN_FILES if (folder / name).exists()]
    named = [values for values in found if isinstance(values, dict)]
    return any("bos_token" in values or values.get("add_bos_token") is False for values in named)


def _configured_token(tokenizer: Any, configured: Sequence[tuple[Path, Mapping[str, Any]]], key: str) -> str | None:
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


def _token(tokenizer: Any, number: Any) -> str | None:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**32:
        return None
    text: str | None = tokenizer.backend_tokenizer.id_to_token(number)
    return text
