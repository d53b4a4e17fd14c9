"""The report in a headless Chromium: figures drawn, tables sorted, nothing on the console, nothing too wide."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.report.page import write_report
from tests.support.study_directory import MakeRecord, WriteStudy, made_up_records

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
    "--virtual-time-budget=10000", "--window-size=1400,1000",
)  # fmt: skip
DARK = "--blink-settings=preferredColorScheme=0"
# Looks at the page when all figures are drawn, and leaves what it saw in the page around it: the report stands in a
# frame, because a window cannot be as narrow as a telephone.
PROBE = """<script>
addEventListener("load", async () => {
  const figures = [...document.querySelectorAll("script[data-figure]")].map(each => each.dataset.figure);
  for (let i = 0; i < 100 && document.querySelectorAll(".chart svg").length < figures.length; i++)
    await new Promise(done => setTimeout(done, 50));
  const buttons = [...document.querySelectorAll("#trials th button")];
  const click = text => buttons.find(each => each.textContent === text).click();
  const column = index =>
    [...document.querySelector("#trials table").tBodies[0].rows].map(row => row.cells[index].textContent);
  const seen = {figures: {}, width: document.documentElement.scrollWidth, window: innerWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches};
  for (const name of figures) {
    const svg = document.querySelector("#figure-" + name + " svg");
    const box = svg && svg.getBoundingClientRect();
    seen.figures[name] = svg && {marks: svg.querySelectorAll("path").length, width: box.width, right: box.right,
      texts: [...svg.querySelectorAll("text")].filter(each => {
        const own = each.getBoundingClientRect();
        return own.width && (own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1);
      }).map(each => each.textContent)};
  }
  if (buttons.length) {
    click("Perplexity"); seen.rising = column(0); click("Perplexity"); seen.falling = column(0);
    click("Status"); seen.byStatus = column(1);
  }
  seen.dead = [...document.querySelectorAll("nav a")].filter(each => !document.querySelector(each.hash)).length;
  const place = parent.document.createElement("pre");
  place.textContent = JSON.stringify(seen); place.className = "seen"; parent.document.body.append(place);
});
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, which is not on the path")

Seen = tuple[dict[int, dict[str, Any]], list[str]]
Visit = Callable[..., Seen]


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    """Opens a study's report in frames so wide; returns what each probe saw, by width, and what the console says."""

    def open_report(
        directory: Path, *widths: int, flags: tuple[str, ...] = ()
    ) -> tuple[dict[int, dict[str, Any]], list[str]]:
        text = write_report(directory).read_text(encoding="utf-8")
        before, _, after = text.rpartition("</body>")  # it also stands in the figures' JavaScript
        framed = html.escape(f"{before}{PROBE}</body>{after}")
        frames = (
            f'<iframe srcdoc="{framed}" style="width:{width}px;height:900px;border:0"></iframe>' for width in widths
        )
        page = tmp_path / "framed.html"
        page.write_text(f'<!doctype html><meta charset="utf-8">{"".join(frames)}', encoding="utf-8")
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [str(CHROMIUM), *FLAGS, *flags, profile, "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        found = [
            json.loads(html.unescape(each)) for each in re.findall(r'<pre class="seen">(.*?)</pre>', done.stdout, re.S)
        ]
        assert len(found) == len(widths), done.stderr[-2000:]
        return {seen["window"]: seen for seen in found}, [
            line for line in done.stderr.splitlines() if "CONSOLE" in line
        ]

    return open_report


def _check_figures(seen: dict[str, Any], width: int) -> None:
    assert set(seen["figures"]) == {"front", "curves", "memory"}
    for name, figure in seen["figures"].items():
        assert figure is not None, name
        assert figure["marks"] > 10
        assert figure["width"] > 0.7 * width
        assert figure["right"] <= width
        assert figure["texts"] == []  # none is cut off at the figure's edge
    assert seen["width"] <= width  # tables that are wider scroll within themselves
    assert seen["dead"] == 0


def test_figures_are_drawn_on_a_desk_and_on_a_telephone(write_study: WriteStudy, visit: Visit) -> None:
    seen, console = visit(write_study(), 1280, 390)
    assert console == []
    for width in (1280, 390):
        _check_figures(seen[width], width)
        assert not seen[width]["dark"]


def test_figures_are_drawn_in_the_dark_and_a_click_on_a_heading_sorts(write_study: WriteStudy, visit: Visit) -> None:
    both, console = visit(write_study(), 1000, flags=(DARK,))
    seen = both[1000]
    assert console == []
    _check_figures(seen, 1000)
    assert seen["dark"]
    values = {record.trial_id: record.measurements["perplexity"] for record in made_up_records()}
    known = {trial_id: value for trial_id, value in values.items() if value is not None}
    rising, falling = ([known[each] for each in seen[way][: len(known)]] for way in ("rising", "falling"))
    assert rising == sorted(known.values())
    assert falling == sorted(known.values(), reverse=True)
    for way in ("rising", "falling"):
        assert sorted(seen[way][len(known) :]) == ["t013", "t014", "t015"]  # without a value: last, both ways
    assert seen["byStatus"] == [
        *["complete★"] * 6, *["complete"] * 5, "stopped", "stopped", "infeasible", "diverged", "failed",
    ]  # fmt: skip


def test_hostile_texts_do_not_run(write_study: WriteStudy, record: MakeRecord, visit: Visit) -> None:
    attack = "</script><script>console.log('run')</script><img src=x onerror=console.log('run')><!--<script>"
    samples = [{"prompt": attack, "base": attack, "tuned": attack}]
    base = {"path": attack, "revision": attack, "sha256": attack}
    odd = record(0, samples=samples, base_model=base)
    seen, console = visit(write_study([odd, record(1, status="failed", error=attack, reason=attack)], name=attack), 800)
    assert console == []
    assert seen[800]["figures"]["front"]["marks"] > 3


def test_an_empty_report_is_quiet(write_study: WriteStudy, visit: Visit) -> None:
    seen, console = visit(write_study([]), 390)
    assert console == []
    assert seen[390]["figures"] == {}
    assert seen[390]["dead"] == 0
    assert seen[390]["width"] <= 390
