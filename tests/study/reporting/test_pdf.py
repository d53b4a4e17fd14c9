"""The report as PDF and as single figures: with a browser that is there, one that fails, and none."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from study.cli.main import main
from study.errors import ConfigError
from study.reporting.pdf import BROWSER_VARIABLE, BROWSERS, find_browser, print_report
from tests.support.study_directory import made_up_records, study_settings

PRINTS = 'for one in "$@"; do case $one in --print-to-pdf=*) printf "%%PDF-1.4" > "${one#*=}";; esac; done'
MakeBrowser = Callable[[str], Path]


@pytest.fixture
def make_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeBrowser:
    """A browser that runs these lines of shell, named in the environment."""

    def make(lines: str) -> Path:
        script = tmp_path / "browser"
        script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "asked"}\n{lines}\n', encoding="utf-8")
        script.chmod(0o755)
        monkeypatch.setenv(BROWSER_VARIABLE, str(script))
        return script

    return make


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A small study's directory, in a folder whose name holds a space."""
    folder = tmp_path / "my study"
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(study_settings()), encoding="utf-8")
    lines = "".join(each.to_json() + "\n" for each in made_up_records())
    (folder / "results.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_the_report_is_printed_beside_itself(directory: Path, tmp_path: Path, make_browser: MakeBrowser) -> None:
    make_browser(PRINTS)
    report = directory / "report.html"
    assert print_report(report) == directory / "report.pdf"
    assert (directory / "report.pdf").read_bytes() == b"%PDF-1.4"
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert "--headless" in asked
    assert "/my%20study/report.html" in asked  # a URL
    assert sorted(file.name for file in directory.iterdir()) == ["report.pdf", "results.jsonl", "study.yaml"]


@pytest.mark.parametrize(
    ("lines", "said"), [("echo no display >&2; exit 3", "(exit code 3: no display)"), ("exit 0", "(exit code 0)")]
)
def test_a_browser_that_prints_nothing_is_named_and_an_earlier_pdf_stays(
    directory: Path, make_browser: MakeBrowser, lines: str, said: str
) -> None:
    browser = make_browser(lines)
    (directory / "report.pdf").write_bytes(b"%PDF earlier")
    with pytest.raises(ConfigError) as caught:
        print_report(directory / "report.html")
    assert f"it wrote no PDF {said}. Install Chromium" in str(caught.value)
    assert f'browser = "{str(browser)[:20]}' in str(caught.value)  # a long path is shortened in its middle
    assert '/browser": must print' in str(caught.value)
    assert (directory / "report.pdf").read_bytes() == b"%PDF earlier"


def test_without_a_browser_the_remedy_is_said_and_the_page_is_there(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("analysis.report.page.write_report", lambda study: study.directory / "report.html")
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv(BROWSER_VARIABLE, raising=False)
    assert main(["report", str(directory), "--pdf"]) == 2
    said = capsys.readouterr()
    assert said.out == f"{directory / 'report.html'}\n"
    assert said.err.startswith('--pdf: browser = "chromium, ')
    assert "apt-get install chromium" in said.err


def test_figures_and_tables_go_into_a_folder(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "figures"
    assert main(["report", str(directory), "--figures", str(folder)]) == 0
    listed = [Path(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert {"front.png", "front.svg", "front.csv", "effects.csv"} <= {file.name for file in listed}
    assert sorted(listed) == sorted(folder.iterdir())
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "front.csv").open(encoding="utf-8") as file:
        assert len(list(csv.reader(file))) > 1


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="needs chromium, which is not on the path")
def test_a_real_browser_prints_what_a_script_has_drawn(directory: Path) -> None:
    assert find_browser()
    draws = "for (let i = 0; i < 3; i++) document.body.innerHTML += '<h1 style=\"break-after: page\">drawn</h1>'"
    page = f"<!doctype html><body><script>setTimeout(() => {{ {draws} }}, 200)</script></body>"
    (directory / "report.html").write_text(page, encoding="utf-8")
    printed = print_report(directory / "report.html").read_bytes()
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") >= 3
