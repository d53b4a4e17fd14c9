"""The JavaScript that draws the figures on the page, made once for each version of vl_convert."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import vl_convert
from markupsafe import Markup

from trainables.user_cache import CacheEntry, cached_folder

KIND, BUNDLE = "javascript", "bundle.js"


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
    return not hasattr(vl_convert, "javascript_bundle") or CacheEntry(KIND, _key()).intact()


def _key() -> str:
    return f"vl-convert-{version('vl-convert-python')}"


def _bundle() -> str:
    try:
        return (cached_folder(KIND, _key(), _make) / BUNDLE).read_text(encoding="utf-8")
    except OSError:  # no cache where this user may write: it takes its two seconds each time
        return _bundled()


def _bundled() -> str:
    make: Callable[..., str] = vl_convert.javascript_bundle  # its stub asks for a snippet, which is optional
    return make()


def _make(folder: Path) -> None:
    (folder / BUNDLE).write_text(_bundled(), encoding="utf-8")
