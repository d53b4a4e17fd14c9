"""Tells from a file's first bytes and its name what it is, where it is not what it should be."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainables.base_model.checks.faults import ModelFault, whole_file
from trainables.guarded_files import FileRefusedError, open_regular

HEAD_BYTES = 512
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
PICKLED_ENDINGS = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
GGUF_MAGIC = b"GGUF"
CONVERT = (
    "Pickled weights can run code and are never read: save the model once more with save_pretrained (safetensors), "
    "from a source you trust."
)


@dataclass(frozen=True)
class Content:
    """What a file holds by its first bytes, in words, and the remedy."""

    words: str
    remedy: str


_LINK_TEXT = re.compile(rb"[\w./@+ -]*/[\w.@+ -]+\.(?:safetensors|gguf|json|model|txt)\s*")
_LINK = Content("a link that was saved as text", "Put the file itself there; git and copies can lose links.")
_AGAIN = "Download the file itself (huggingface-cli download, or the page's download link)."
_POINTER = Content("a git-lfs pointer, not the file", "Run: git lfs pull (in the model's folder)")
_STARTS = (
    (LFS_POINTER, _POINTER),
    (b"<!doctype html", Content("an HTML page", _AGAIN)),
    (b"<html", Content("an HTML page", _AGAIN)),
    (b'{"error"', Content("an error message of the server", _AGAIN)),
    (b"pk\x03\x04", Content("a zip archive (as torch.save writes)", CONVERT)),
    (b"\x80\x02\x8a", Content("a pickle", CONVERT)),
    (b"\x80\x04\x95", Content("a pickle", CONVERT)),
    (b"\x1f\x8b", Content("a gzip archive", "Unpack it, and give what was in it.")),
    (b"gguf", Content("a GGUF file", "Give it a name that ends in .gguf, and that file as base_model.path.")),
)


def content_of(head: bytes) -> Content | None:
    """Returns what a file is by its first bytes, or None where they say nothing known."""
    if not head:
        return Content("an empty file", "Download it again.")
    if len(head) < HEAD_BYTES and _LINK_TEXT.fullmatch(head):
        return _LINK
    begin = head.lstrip(b"\xef\xbb\xbf \r\n\t")[:64].lower()
    return next((content for start, content in _STARTS if begin.startswith(start)), None)


def file_fault(path: Path, rule: str, is_it: Callable[[bytes], bool] = lambda head: False) -> ModelFault | None:
    """Returns the fault of a file that is missing, no regular file, or by its first bytes something else.

    `is_it` tells from the first bytes that the file is what it should be.
    """
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
        content = None if is_it(head) else content_of(head)
    except FileRefusedError as error:
        return whole_file(path, error.found.rpartition(" is ")[2], rule, error.remedy)
    except FileNotFoundError:
        found = "a link to nothing" if path.is_symlink() else "missing"
        return whole_file(path, found, rule, "Download the model completely.")
    except OSError as error:
        return whole_file(path, f"cannot be read ({error.strerror})", rule, "Make it readable.")
    return whole_file(path, content.words, rule, content.remedy) if content else None


def refused(path: Path, error: FileRefusedError, remedy: str) -> ModelFault:
    """Returns the fault of a file that its guarded reader has refused."""
    found = error.found.removeprefix(f"{path} ").removeprefix("does not: ")
    return whole_file(path, found, error.rule.removeprefix("It "), remedy)


def is_there(path: Path) -> bool:
    """Whether something is there to be checked: neither nothing, nor a link to nothing, nor a link saved as text."""
    try:
        with open_regular(path) as file:
            return content_of(file.read(HEAD_BYTES)) is not _LINK
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


def pointers(files: list[Path]) -> list[ModelFault]:
    """Returns one fault for all git-lfs pointers among the files; none where there is none."""
    found = [path for path in files if _is_pointer(path)]
    if not found:
        return []
    words = _POINTER.words if len(found) == 1 else f"{_POINTER.words}, as are {len(found) - 1} more beside it"
    return [whole_file(found[0], words, "a base model's files must be there themselves", _POINTER.remedy)]


def _is_pointer(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except (OSError, ValueError):
        return False
