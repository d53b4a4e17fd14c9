"""The whole report: self-contained, small, safe against what models write; and pareto.json beside it."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from analysis.load import Study, StudyDirectoryError, load_study
from analysis.report import page as page_module
from analysis.report.page import report_page, write_report
from study.errors import StoreError
from tests.support.html_pages import HtmlPage
from tests.support.study_directory import GIB, MakeRecord, WriteStudy, made_up_records

HOSTILE = "</script><script>alert(1)</script><!--<script>${x}$$title\u2028\ud800\x00'\"&"
MOST_BYTES = 5 * 2**20


def _write(directory: Path) -> tuple[str, HtmlPage, dict[str, Any]]:
    text = write_report(directory).read_text(encoding="utf-8")
    return text, HtmlPage(text), json.loads((directory / "pareto.json").read_text(encoding="utf-8"))


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_report_opens_with_the_answer_and_has_every_part(write_study: WriteStudy) -> None:
    directory = write_study()
    assert write_report(directory) == directory / "report.html"
    text, page, _ = _write(directory)
    assert page.headings[0] == "pubmedqa-t4"
    assert text.index("Best perplexity with peak memory at most 1.25 GiB: 13.44") < text.index("<nav")
    parts = [
        "The front", "Which configuration for which memory", "All trials", "Training", "Memory", "Samples",
        "Provenance",
    ]  # fmt: skip
    assert [heading for heading in page.headings if heading in parts] == parts
    assert text.count("data-figure=") == 3


def test_a_page_that_is_served_asks_for_the_next(study: Study) -> None:
    assert '<head>\n<meta http-equiv="refresh" content="7">\n<meta charset' in report_page(study, refresh_seconds=7)
    assert "refresh" not in HtmlPage(report_page(study)).values


def test_links_stay_inside_and_are_alive(write_study: WriteStudy) -> None:
    _, page, _ = _write(write_study())
    assert len(page.links) == 11
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_the_whole_page_loads_nothing_and_is_small(write_study: WriteStudy) -> None:
    text, page, _ = _write(write_study())
    assert page.loads == []
    assert page.handlers == []
    assert "@import" not in text
    assert "url(" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")  # the browser would refuse to load anything
    assert "http" not in policy[1]
    assert len(page.scripts) == 5  # three figures, the bundle, the page's own: nothing ended one early
    assert len(max(page.scripts, key=len)) > 500_000
    assert len(text.encode()) < MOST_BYTES


def test_a_large_study_stays_under_the_limit(write_study: WriteStudy, record: MakeRecord) -> None:
    error = "Traceback\n" + "  at somewhere\n" * 1000 + "ValueError: x"
    curve = [{"step": 5 * i, "train_loss": 2.0, "perplexity": 20 - i / 10, "learning_rate": 1e-4} for i in range(12)]
    short: dict[str, Any] = {"curve": curve, "dataset": {}}
    quality = [25.0 if i % 20 else 20 - i / 100 for i in range(600)]  # every twentieth is on the front
    sizes = [{"perplexity": value, "peak_memory_bytes": GIB + i * 2**20} for i, value in enumerate(quality)]
    records = [record(i, measurements=each, **short) for i, each in enumerate(sizes)]
    records += [record(600 + i, status="failed", error=error, **short) for i in range(120)]
    text, page, document = _write(write_study(records))
    assert len(text.encode()) < MOST_BYTES * 0.75
    assert "60 of 720 trials are shown" in text
    assert "220 more trials stand in results.jsonl" in text
    assert text.count('class="member"') == len(document["front"]) == 30
    assert page.loads == []


def test_hostile_texts_are_only_text(write_study: WriteStudy, record: MakeRecord) -> None:
    samples = [{"prompt": HOSTILE, "base": HOSTILE, "tuned": HOSTILE}]
    info = {"name": HOSTILE, "compute_dtype": HOSTILE, "memory_source": HOSTILE}
    lengths = {"statistics": {HOSTILE: {"rows": 3}}, "fingerprint": HOSTILE}
    everywhere = {"device": info, "dataset": lengths, "base_model": {"path": HOSTILE}, "samples": samples}
    end = {"reason": HOSTILE, "error": f"{HOSTILE}\n{HOSTILE}", "status": "infeasible"}
    asked = {"moment": HOSTILE, "source": HOSTILE, "requested_bytes": GIB, "available_bytes": GIB // 2}
    records = [record(0, **everywhere), record(1, infeasible=asked, **end), record(2, trial_id=HOSTILE)]
    directory = write_study([], name="x")
    lines = "".join(each.to_json().replace("\ud800", "\\ud800") + "\n" for each in records)
    (directory / "results.jsonl").write_text(lines, encoding="utf-8")
    (directory / "provenance.json").write_text(json.dumps({HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}), encoding="utf-8")
    settings = (directory / "study.yaml").read_text(encoding="utf-8")
    title = json.dumps(HOSTILE.replace("\ud800\x00", ""))
    (directory / "study.yaml").write_text(settings.replace("name: x\n", f"name: {title}\n"), encoding="utf-8")
    text, page, document = _write(directory)
    assert "alert(1)" in text
    assert not any("alert(1)" in script and "{" not in script for script in page.scripts)
    assert text.count("<script") == len(page.scripts) == 2 + 3
    assert page.handlers == []
    assert [one["trial_id"] for one in document["front"]] == ["t000"]
    assert "line 3: trial_id must be a plain file name" in page.text
    for script in page.scripts[:3]:
        for layer in json.loads(script)["layer"]:  # the figures' data are whole
            assert all(isinstance(row, dict) for row in layer["data"]["values"])


def test_what_looks_like_a_template_is_text(write_study: WriteStudy, record: MakeRecord) -> None:
    samples = [{"prompt": "$title {{ headline }} $$", "base": "{% raw %}", "tuned": "{# no comment #}"}]
    text, _, _ = _write(write_study([record(0, samples=samples)]))
    for words in ("$title {{ headline }} $$", "{% raw %}", "{# no comment #}"):
        assert words in text


# -- little and much ---------------------------------------------------------------------------------------------------


def test_a_report_before_the_first_result(write_study: WriteStudy) -> None:
    directory = write_study([])
    text, page, document = _write(directory)
    assert "No trial has ended yet." in text
    assert document["front"] == []
    assert document["hypervolume"] is None
    assert "Memory" not in page.headings
    assert "data-figure=" not in text
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    (directory / "results.jsonl").unlink()
    assert "No trial has ended yet." in _write(directory)[0]


def test_a_report_without_a_front(write_study: WriteStudy) -> None:
    text, _, document = _write(write_study([each for each in made_up_records() if each.status != "complete"]))
    assert "No complete trial, so there is no front" in text
    assert "nothing to draw" in text
    assert "nothing to choose from" in text
    assert "The front is empty" in text
    assert document == {**document, "front": [], "hypervolume": None}
    assert 'data-figure="curves"' in text


def test_four_objectives(write_study: WriteStudy) -> None:
    objectives = [
        {"metric": "accuracy", "direction": "maximize", "reference": 0.3},
        {"metric": "perplexity", "direction": "minimize", "reference": 30},
        {"metric": "peak_memory_bytes", "direction": "minimize", "reference": "2 GiB"},
        {"metric": "train_tokens_per_second", "direction": "maximize", "reference": 100},
    ]
    text, _, document = _write(write_study(objectives=objectives))
    assert [each["metric"] for each in document["objectives"]] == [each["metric"] for each in objectives]
    assert document["hypervolume"] > 0
    assert "fraction × perplexity × GiB × tokens/s" in text
    assert "Best answer accuracy with peak memory at most 2.00 GiB" in text


def test_figures_without_a_bundle_are_pictures(write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "javascript", lambda: None)
    text, page, _ = _write(write_study())
    assert text.count("<svg") == 3
    assert len(page.scripts) == 2
    assert page.loads == []


# -- files -------------------------------------------------------------------------------------------------------------


def test_pareto_json_keeps_its_contract(write_study: WriteStudy) -> None:
    _, _, document = _write(write_study())
    assert list(document) == ["objectives", "front", "hypervolume"]
    assert [member["trial_id"] for member in document["front"]] == ["t004", "t008", "t006", "t005", "t007", "t003"]
    assert document["hypervolume"] == pytest.approx(9.854 * GIB, rel=1e-4)


def test_a_second_report_replaces_the_first_and_leaves_nothing_behind(write_study: WriteStudy) -> None:
    directory = write_study()
    before = {file.name for file in directory.iterdir()}
    first = write_report(directory).read_bytes()
    assert write_report(directory).read_bytes() == first  # the same study, the same bytes
    assert {file.name for file in directory.iterdir()} == before | {"report.html", "pareto.json"}
    assert stat.S_IMODE(os.stat(directory / "report.html").st_mode) == 0o644


def test_a_write_that_fails_leaves_the_old_report(write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write_study()
    old = write_report(directory).read_bytes()

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match=r"pareto\.json must be writable; no space left.*Move away what is there"):
        write_report(directory)
    assert (directory / "report.html").read_bytes() == old
    assert not [file for file in directory.iterdir() if file.name.startswith(".")]


def test_what_is_no_study_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyDirectoryError, match=r"study\.yaml must be there; it is missing"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_a_torn_study(write_study: WriteStudy) -> None:
    directory = write_study(tail='{"study": "made-up", "trial_id": "t0')
    assert "16 trials" in report_page(load_study(directory))
