"""The pages: links lead somewhere, commands parse, examples load, maps name every file."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_spaces.parameters import parse_space
from study.cli import main as cli
from study.config.reader import Section
from study.config.study_config import load_study, to_yaml_text
from tests.support import maps
from tests.support.pages import ROOMS, anchors, blocks, code, commands, links, pages
from tests.support.places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDY_FILE = (ROOT / "study" / "guide" / "study_file.md").read_text(encoding="utf-8")
SPACES = (ROOT / "search_spaces" / "README.md").read_text(encoding="utf-8")
MINIMAL = """
name: my-study
base_model: {path: meta-llama/Llama-3.2-1B}
dataset: {name: pubmedqa}
space: search_spaces/wide.yaml
search: {algorithm: random, trials: 32}
objectives:
  - {metric: perplexity, direction: minimize, reference: 12.0}
  - {metric: peak_memory_bytes, direction: minimize, reference: 14.56 GiB}
"""
EACH_PAGE = pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@EACH_PAGE
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    missing = [link for link in links(page.read_text(encoding="utf-8")) if not _leads_somewhere(page, link)]
    assert missing == []


def _leads_somewhere(page: Path, link: str) -> bool:
    if re.match(r"[a-z]+:", link):  # the web: no test reaches for it
        return True
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    inside = target.is_relative_to(ROOT) and target.exists()
    return inside and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))


@EACH_PAGE
def test_every_path_in_code_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = {
        path.rstrip(".,:")
        for line in code(text)
        for path in re.findall(rf"(?<![\w./-])(?:{'|'.join(ROOMS)})/[\w./*-]*", line)
    }
    assert sorted(path for path in paths if not list(ROOT.glob(path.rstrip("/")))) == []


@EACH_PAGE
def test_every_command_parses(page: Path) -> None:
    for arguments in commands(page.read_text(encoding="utf-8"), "python -m study"):
        parser = cli._parser()
        parser.parse_args(arguments)  # exits where it refuses
        (chosen,) = (action.choices[arguments[0]] for action in parser._actions if isinstance(action.choices, dict))
        options = {word for word in arguments if word.startswith("--")}
        assert options <= set(chosen._option_string_actions)  # argparse takes abbreviations too


def test_the_readme_names_every_command() -> None:
    table = README.split("\n## Commands\n", 1)[1].split("\n## ", 1)[0]
    cells = [re.match(r"\| (.+?) \| ", line) for line in table.splitlines()]
    spans = [span for cell in cells if cell for span in re.findall(r"`(?:python -m study )?(\w+)", cell[1])]
    listed = re.findall(r"^    (\w+)  ", cli._parser().format_help(), flags=re.MULTILINE)
    assert len(listed) > 10
    assert set(spans) == set(listed)


@EACH_PAGE
def test_every_module_that_is_run_is_there(page: Path) -> None:
    called = {
        name for line in code(page.read_text(encoding="utf-8")) for name in re.findall(r"python -m ([\w.]+)", line)
    }
    own = {name for name in called if name.split(".")[0] in ROOMS} - {"tests.benchmarks.NAME"}
    missing = [name for name in own if not (ROOT / f"{name.replace('.', '/')}.py").is_file() and not find_spec(name)]
    assert missing == []


def study_file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(text.replace("../../search_spaces/", "search_spaces/"), encoding="utf-8")
    return file


def test_the_study_file_of_the_page_loads(tmp_path: Path) -> None:
    (block,) = blocks(STUDY_FILE, "yaml")
    assert load_study(study_file(tmp_path, block)).search.trials == 32


def test_the_page_has_every_key_of_the_study_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, raw = set(), Section.raw

    def noting(section: Section, name: str) -> Any:
        read.add(re.sub(r"\.\d+", "", section.path(name)))
        return raw(section, name)

    monkeypatch.setattr(Section, "raw", noting)
    (block,) = blocks(STUDY_FILE, "yaml")
    load_study(study_file(tmp_path, block))
    whole = yaml.safe_load(re.sub(r"^  # (\w+: )", r"  \1", block, flags=re.MULTILINE))
    assert "training.max_steps" in read
    assert set(_keys({**whole, "space": ""})) == read


def _keys(values: Any, path: str = "") -> list[str]:
    if isinstance(values, list):
        return [key for value in values for key in _keys(value, path)]
    if not isinstance(values, dict):
        return []
    whole = [(f"{path}.{name}".lstrip("."), value) for name, value in values.items()]
    return [one for key, value in whole for one in (key, *_keys(value, key))]


def test_the_values_of_the_page_are_the_defaults_but_for_those_it_lists(tmp_path: Path) -> None:
    (block,) = blocks(STUDY_FILE, "yaml")
    shown, default = (
        dict(_leaves(yaml.safe_load(to_yaml_text(load_study(study_file(tmp_path, text)))))) for text in (block, MINIMAL)
    )
    table = STUDY_FILE.split("| key | default |", 1)[1].split("\n\n", 1)[0]
    listed = set(re.findall(r"`([\w.]+)`", table))
    differing = {key for key in shown if shown[key] != default[key] and not key.startswith("space.")}
    assert differing == listed


def _leaves(values: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    pairs = [(f"{path}{name}", value) for name, value in values.items()]
    return [
        leaf
        for key, value in pairs
        for leaf in (_leaves(value, f"{key}.") if isinstance(value, dict) else [(key, value)])
    ]


def test_the_search_spaces_of_the_page_load() -> None:
    first, conditional = (parse_space(yaml.safe_load(block)) for block in blocks(SPACES, "yaml"))
    assert len(first.grid([0])) == 12
    assert len(conditional.grid([0])) == 6  # of rank 64 two dropouts, of rank 8 one


@pytest.mark.parametrize("page", maps.PAGES)
def test_the_map_is_that_of_the_tree(page: str) -> None:
    remedy = f"Run: {maps.COMMAND}"
    assert (ROOT / page).read_text(encoding="utf-8") == maps.rewritten(page), remedy
