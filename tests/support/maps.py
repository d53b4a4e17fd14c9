"""Writes the maps of the rooms, one line a file, from the tree and the files' own first sentences.

python -m tests.support.maps --write          rewrites the maps between their markers in the rooms' README files
python -m tests.support.maps                  prints the pages whose map differs from the tree; exit code 1 if any
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

from tests.support.places import ROOT

COMMAND = "python -m tests.support.maps --write"
BEGIN, END = f"<!-- map: {COMMAND} -->", "<!-- end of map -->"
PAGES = {  # the room of each page, and its folders in the order of its map; others follow by name
    "search_spaces/README.md": (),
    "trainables/README.md": (
        "kernels", "dataset", "base_model", "base_model/checks", "memory", "packed", "packed/fused", "measure",
        "engine", "actors",
    ),
    "study/README.md": (
        "records", "hardware", "reporting", "config", "progress", "environment", "search", "export", "plan", "cluster",
        "run", "cli",
    ),
    "analysis/README.md": ("statistics", "figures", "tables", "report"),
    "tests/benchmarks/README.md": ("search", "support", "tests"),
}  # fmt: skip
UNLISTED = ("results", "__pycache__")  # measured numbers: the page links each file where it tells of it
SPEAKING = (".py", ".md", ".yaml", "Dockerfile")  # ends of the names of files that must say what they are
WORDS = {  # of folders without a docstring, and of files whose form has no place for a sentence
    "study/studies": "Studies as data: a quickstart, and four for a T4.",
    "study/guide": "Guides for users.",
    "study/grafana_dashboard.json": "The charts of a study for Grafana.",
    "trainables/sample_data": "Medical sample rows, for trying the software.",
    "trainables/sample_data/medical_qa.json": "153 questions with evidence and answer, in PubMedQA's form.",
    "analysis/guide": "Pages on what the numbers mean, and the picture of the front.",
    "analysis/guide/front-light.svg": "The README's picture, for light pages.",
    "analysis/guide/front-dark.svg": "The README's picture, for dark pages.",
    "analysis/report/templates": "The report's HTML, before it is filled in.",
    "analysis/pareto_study.ipynb": "The notebook: opens a study directory and calls functions of this room.",
    "tests/benchmarks": "One command each, which prints a table and writes JSON.",
    "tests/benchmarks/cluster": "Ray clusters of this machine, with all that a real one does.",
    "tests/benchmarks/search": "Early stopping and search, replayed on recorded trainings.",
    "tests/benchmarks/planning": "Plans, simulated with the models that they are made by.",
    "tests/benchmarks/streaming": "Base models that wait in host memory.",
    "tests/benchmarks/support": "What several benchmarks share.",
    "tests/benchmarks/tests": "Tests of the benchmarks' own arithmetic.",
}


def room_map(page: str) -> str:
    """A room's folders and files, each with its first sentence; names stand in one column."""
    folders = _folders(page)
    groups = [
        [(f"{folder.relative_to(ROOT).as_posix()}/", folder), *((f"  {file.name}", file) for file in _files(folder))]
        for folder in folders
    ]
    width = max(len(name) for group in groups for name, _ in group) + 2
    return "\n\n".join(
        "\n".join(f"{name:<{width}}{sentence(path)}".rstrip() for name, path in group) for group in groups
    )


def _folders(page: str) -> list[Path]:
    """The folders of a page's room that have files, in the order of the map."""
    room, order = (ROOT / page).parent, PAGES[page]
    below = [folder for folder in room.rglob("*") if folder.is_dir() and _files(folder)]
    names = {folder.relative_to(room).as_posix(): folder for folder in below if not {*folder.parts} & {*UNLISTED}}
    ranked = sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))
    return [room, *(names[name] for name in ranked)]


def _files(folder: Path) -> list[Path]:
    """A folder's files that a map names: all but its own README and the file that makes it a package."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return [file for file in files if file.name not in ("README.md", "__init__.py")]


def sentence(path: Path) -> str:
    """What a file or folder says of itself first. Raises ValueError where it says nothing."""
    name = path.relative_to(ROOT).as_posix()
    text = WORDS.get(name) or _own_words(path / "__init__.py" if path.is_dir() else path)
    if not text and (path.is_dir() or path.name.endswith(SPEAKING)):
        raise ValueError(f"{name} must begin with a sentence (docstring, comment or heading); or give it one in WORDS")
    return re.split(r"(?<=[.?!])(?:\s|$)", " ".join(text.split()), maxsplit=1)[0]


def _own_words(file: Path) -> str:
    """A module's docstring, a page's first heading, or the comment that a file begins with."""
    if not file.is_file():
        return ""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    if file.suffix == ".md":
        return f"{text.partition('# ')[2].partition(chr(10))[0]}."
    found = re.match(r"\s*(?:<!--|\{#-?|/\*)(.*?)(?:-->|-?#\}|\*/)|((?:#[^\n]*\n)+)", text, flags=re.DOTALL)
    return "" if found is None else found[1] or re.sub(r"^#", "", found[2], flags=re.MULTILINE)


def rewritten(page: str) -> str:
    """A page with the map that its folders have now. Raises ValueError where it has no place for one."""
    text = (ROOT / page).read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} must have a map between `{BEGIN}` and `{END}`")
    return f"{head}{BEGIN}\n```text\n{room_map(page)}\n```\n{END}{tail}"


def outdated() -> list[str]:
    """The pages whose map differs from the tree."""
    return [page for page in PAGES if rewritten(page) != (ROOT / page).read_text(encoding="utf-8")]


def main() -> int:
    """Rewrites the maps, or says which ones differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="rewrite the maps that differ from the tree")
    write = parser.parse_args().write
    changed = outdated()
    for page in changed:
        if write:
            (ROOT / page).write_text(rewritten(page), encoding="utf-8")
        print(page)
    return 0 if write else int(bool(changed))


if __name__ == "__main__":
    sys.exit(main())
