"""Reads the Markdown pages: their links, headings, code, commands and YAML blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.support.places import ROOT

ROOMS = ("search_spaces", "trainables", "study", "analysis", "tests")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
PLACEHOLDERS = {"PORT": "0", "…": ""}  # what stands for a number, and for "and so on"


def pages() -> list[Path]:
    """All Markdown pages of the project, the README first."""
    return [*sorted(ROOT.glob("*.md")), *(page for room in ROOMS for page in sorted((ROOT / room).rglob("*.md")))]


def links(text: str) -> list[str]:
    """The targets of a page's links and pictures, code left out; addresses of the web too."""
    plain = SPAN.sub("", FENCE.sub("", text))
    return [one or other for one, other in LINK.findall(plain)]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), flags=re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        if count:
            found[f"{slug}-{count}"] = 1
    return set(found)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [body for name, body in FENCE.findall(text) if name == language]


def code(text: str) -> Iterator[str]:
    """Every line of the fenced blocks but plain text, and every code span beside them."""
    for language, body in FENCE.findall(text):
        if language != "text":
            yield from body.splitlines()
    yield from (" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text)))


def commands(text: str, program: str) -> list[list[str]]:
    """The arguments of each `program` in a page's code.

    Of `[--out DIR]` both readings are given, with and without; of `DIR\\|URL` the first.
    """
    found = []
    for line in code(text):
        for part in re.split(r" && | \| ", line):
            _, marker, rest = part.partition(f"{program} ")
            if marker:
                found += [_words(reading) for reading in _readings(rest)]
    return [arguments for arguments in found if arguments]


def _readings(rest: str) -> set[str]:
    without = rest
    while (shorter := re.sub(r"\[[^\[\]]*\]", "", without)) != without:
        without = shorter
    return {without, rest.replace("[", "").replace("]", "")}


def _words(reading: str) -> list[str]:
    plain = re.sub(r"\\?\|\S+", "", reading)
    words = (PLACEHOLDERS.get(word, word) for word in shlex.split(plain, comments=True))
    return [word for word in words if word]
