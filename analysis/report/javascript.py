"""The JavaScript that draws the figures on the page, made once for each version of vl_convert."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import vl_convert
from markupsafe import Markup

from trainables.user_cache import CacheEntry, cached_folder

KIND, BUNDLE, CHECKSUM = "javascript", "bundle.js", "sha256"


@cache
def javascript() -> Markup | None:
    """Returns Vega, Vega-Lite and its embedder as one script; None where this vl_convert has none to give.

    vl_convert takes two seconds of processor time to make it, so it is kept in the user's cache.
    """
    if not hasattr(vl_convert, "javascript_bundle"):
        return None
    # In a script element only its own end tag ends it, and a comment's start confuses it.
    return Markup(_bundle().replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def is_kept() -> bool:
    """Returns whether the script need not be made, or cannot be."""
    return _entry().intact() or not hasattr(vl_convert, "javascript_bundle")


def _entry() -> CacheEntry:
    return CacheEntry(KIND, f"vl-convert-{version('vl-convert-python')}")


def _bundle() -> str:
    entry = _entry()
    try:
        return _kept(entry) or _made_anew(entry)
    except OSError:  # no cache where this user may write: it takes its two seconds each time
        return _bundled()


def _kept(entry: CacheEntry) -> str | None:
    """The script as it was kept, made where there is none; None where a byte of it has changed since."""
    folder = cached_folder(entry.kind, entry.key, _make)
    content = (folder / BUNDLE).read_bytes()
    known = (folder / CHECKSUM).read_text(encoding="ascii", errors="replace")
    return content.decode("utf-8") if hashlib.sha256(content).hexdigest() == known else None


def _made_anew(entry: CacheEntry) -> str:
    entry.discard()
    script = _kept(entry)
    if script is None:
        raise OSError(f"the cache entry {entry.folder} does not keep what is written into it")
    return script


def _bundled() -> str:
    make: Callable[..., str] = vl_convert.javascript_bundle  # its stub asks for a snippet, which is optional
    return make()


def _make(folder: Path) -> None:
    content = _bundled().encode("utf-8")
    (folder / BUNDLE).write_bytes(content)
    (folder / CHECKSUM).write_text(hashlib.sha256(content).hexdigest(), encoding="ascii")
