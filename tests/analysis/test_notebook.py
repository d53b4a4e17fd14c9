"""The notebook: it runs from top to bottom on a study, calls functions and defines none, and was saved with outputs."""

from __future__ import annotations

import ast
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis import notebook
from analysis.figures.vega_lite import Spec
from analysis.load import Study
from tests.support.study_directory import WriteStudy

FILE = Path(notebook.__file__).with_name("pareto_study.ipynb")
CELLS: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def values_of(cells: list[str], names: dict[str, Any]) -> list[Any]:
    """Runs code cells as a notebook does; returns the value of each one's last line, where that is an expression."""
    values = []
    for text in cells:
        tree = ast.parse(text)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell", "exec"), names)
        values.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None)  # type: ignore[attr-defined]
    return values


def test_it_runs_from_top_to_bottom(
    write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_study()
    monkeypatch.chdir(FILE.parent)
    names: dict[str, Any] = {}
    values_of(CODE[:1], names)
    values = values_of(CODE[1:], {**names, "DIRECTORY": directory})
    shown = [value._repr_mimebundle_() for value in values if value is not None]
    assert len(shown) == len(CODE) - 3  # all but those that look up, load and export
    assert sum("image/png" in forms and notebook.VEGALITE in forms for forms in shown) == 3
    assert sum("text/html" in forms for forms in shown) == 7
    assert not [forms for forms in shown if forms["text/plain"] == notebook.NOTHING]
    figures = [forms[notebook.VEGALITE] for forms in shown if notebook.VEGALITE in forms]
    assert {figure["config"]["background"] for figure in figures} == {"white"}
    tables = [forms["text/html"] for forms in shown if "text/html" in forms]
    assert all('<th scope="row" style="text-align: left">' in html and "<td>" not in html for html in tables)
    output = capsys.readouterr().out
    assert "pubmedqa-t4 | 16 trials: 11 complete" in output
    assert "Best perplexity with peak memory at most 1.25 GiB" in output
    for name in ("front.png", "front.svg", "memory.csv", "effects.csv", "samples.csv"):
        assert f"exported/{name}" in output
        assert (directory / "exported" / name).stat().st_size > 0
    with (directory / "exported/effects.csv").open(encoding="utf-8") as file:
        assert next(csv.reader(file))[0] == "Choice"


def test_it_defines_no_function_and_no_class() -> None:
    for text in CODE:
        defined = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        assert defined == []


def test_it_was_saved_with_outputs_of_a_study_and_no_error() -> None:
    cells = [cell for cell in CELLS if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2  # they are what GitHub shows
    assert FILE.stat().st_size < 2 * 2**20


def test_what_there_is_nothing_of_is_said(study: Study) -> None:
    assert notebook.show_table(None)._repr_mimebundle_() == {"text/plain": notebook.NOTHING}
    assert notebook.show_figure(study, "none")._repr_mimebundle_() == {"text/plain": notebook.NOTHING}


def _pictures(folder: Path) -> dict[str, int]:
    """When each of the front's files was written."""
    return {kind: (folder / f"front.{kind}").stat().st_mtime_ns for kind in ("png", "svg", "vl.json")}


def test_a_figure_is_drawn_again_only_where_it_has_changed(study: Study, tmp_path: Path) -> None:
    notebook.export_everything(study, tmp_path)
    first = _pictures(tmp_path)
    listed = notebook.export_everything(replace(study, cost={"cards": 1}), tmp_path)
    assert _pictures(tmp_path) == first
    assert {tmp_path / f"front.{kind}" for kind in first} <= set(listed)
    notebook.export_everything(replace(study, records=study.records[:5]), tmp_path)
    assert all(when > first[kind] for kind, when in _pictures(tmp_path).items())


@pytest.mark.parametrize("kind", ["png", "svg", "vl.json"])
def test_a_figure_of_which_a_file_is_missing_or_another_version_drew_is_drawn_again(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    notebook.export_everything(study, tmp_path)
    first = _pictures(tmp_path)
    (tmp_path / f"front.{kind}").unlink()
    notebook.export_everything(study, tmp_path)
    second = _pictures(tmp_path)
    assert all(when > first[kind] for kind, when in second.items())
    monkeypatch.setattr(notebook, "version", lambda package: "99.0")
    notebook.export_everything(study, tmp_path)
    assert all(when > second[kind] for kind, when in _pictures(tmp_path).items())


def test_what_breaks_off_is_drawn_again(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook.export_everything(study, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(notebook.vl_convert, "vegalite_to_svg", _full)
        with pytest.raises(OSError, match="full"):
            notebook.export_everything(replace(study, records=study.records[:5]), tmp_path)
    first = (tmp_path / "front.png").stat().st_mtime_ns
    notebook.export_everything(study, tmp_path)  # as it was before, but for the picture that had been drawn
    assert _pictures(tmp_path)["png"] > first


def _full(specification: Spec) -> str:
    raise OSError("the disk is full")
