"""Draws the front on the README's first screen, light and dark, from recorded trainings.

    python -m tests.benchmarks.front_picture          writes analysis/guide/front-light.svg and front-dark.svg

The recording holds 48 configurations of SmolLM2-135M, each trained to its end on PubMedQA, and the peak memory of each,
measured alone. Nothing is placed by hand: both files follow from the recording and the themes of all figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from analysis.figures.front_rows import front_points
from analysis.figures.parts import Row
from analysis.figures.style import NEUTRAL, THEMES, TICKS, colour, data, fill, rank_size, scale, shape
from analysis.load import Study
from search_spaces.trial_config import TrialConfig
from study.records.objectives import Objective
from study.records.record import TrialRecord
from tests.support.places import RESULTS, ROOT

RECORDING = RESULTS / "search" / "curves_smollm2_135m_seed0.json"
FOLDER = ROOT / "analysis" / "guide"
WIDTH, HEIGHT = 640, 380  # pixels, without axes and legends: with them, the width of a README
MARGIN, LABEL_PIXELS = 60, 38  # pixels beside the outermost points, and what a label takes
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"  # of one metric, so that text keeps its room on every machine
TITLE = "SmolLM2-135M on PubMedQA: perplexity against peak memory"
VERSION = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def recorded_study(file: Path = RECORDING) -> Study:
    """The recording as a study, minimizing perplexity and peak memory."""
    recording = json.loads(file.read_text(encoding="utf-8"))
    worst = max(curve["memory_bytes"] for curve in recording["curves"])
    objectives = (
        Objective("perplexity", "minimize", recording["curves"][0]["base_perplexity"]),
        Objective("peak_memory_bytes", "minimize", worst),
    )
    records = tuple(map(_record, recording["curves"]))
    return Study(recording["about"]["base_model"], file.parent, objectives, records)


def _record(curve: Mapping[str, Any]) -> TrialRecord:
    measured = {"perplexity": curve["curve"][-1][1], "peak_memory_bytes": curve["memory_bytes"]}
    config = TrialConfig.from_dict(curve["config"])
    return TrialRecord("recording", curve["trial_id"], curve["status"], config, measurements=measured)


def picture(study: Study, theme: str) -> str:
    """The study's front as SVG, in one of the themes."""
    chart = _chart(front_points(study)).to_dict(validate=False)
    padding = {"left": 5, "top": 5, "bottom": 5, "right": 25}  # where none of the fonts is there, another runs wider
    config = {**THEMES[theme], "font": FONT, "aria": False, "padding": padding}
    svg: str = vl_convert.vegalite_to_svg({**chart, "config": config}, vl_version=VERSION)
    return svg + "\n"


def _chart(points: Sequence[Row]) -> alt.LayerChart:
    across, upward = ([point[name] for point in points] for name in ("x", "y"))
    axis = alt.Axis(tickCount=TICKS)
    x = alt.X(
        "x:Q",
        title="Peak memory of training alone (GiB, lower is better)",
        scale=scale(across, padding=MARGIN),
        axis=axis,
    )
    y = alt.Y("y:Q", title="Perplexity (lower is better)", scale=scale(upward))
    marks = alt.Chart(data(sorted(points, key=lambda point: bool(point["on_front"])))).mark_point(
        strokeWidth=2, opacity=1
    )
    filled = alt.condition("datum.on_front", alt.value(1), alt.value(0))
    look = {"color": colour(points), "fill": fill(points), "shape": shape(points), "size": rank_size(points)}
    members = front_line(points)
    line = alt.Chart(data(members)).mark_line(interpolate="step-after", color=NEUTRAL, strokeWidth=1.5)
    layers = [line.encode(x=x, y=y), marks.encode(x=x, y=y, fillOpacity=filled, **look), *_labels(members, x, y)]
    count = f"{len(points)} configurations trained on one H200; filled: the {len(members)} on the Pareto front"
    title = {"text": TITLE, "subtitle": count}
    chart: alt.LayerChart = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=title)
    return chart


def front_line(points: Sequence[Row]) -> list[Row]:
    """The front from left to right; `room` is how far it runs level to the next member, in pixels."""
    members = sorted((point for point in points if point["on_front"]), key=lambda point: float(point["x"]))
    spread = max(point["x"] for point in points) - min(point["x"] for point in points)
    pixels = (WIDTH - 2 * MARGIN) / spread
    ends = [*(member["x"] for member in members[1:]), members[-1]["x"] + spread]
    rooms = [pixels * (end - one["x"]) for one, end in zip(members, ends, strict=True)]
    return [
        {"x": one["x"], "y": one["y"], "label": f"rank {one['rank']}", "room": room}
        for one, room in zip(members, rooms, strict=True)
    ]


def _labels(members: Sequence[Row], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Labels below the line, where no mark can be: along it where it runs level for long enough, else to its left."""
    long, short = ([row for row in members if (row["room"] >= LABEL_PIXELS) == fits] for fits in (True, False))
    styles = ((long, {"align": "left", "dx": 2, "dy": 9}), (short, {"align": "right", "dx": -8, "dy": 5}))
    return [
        alt.Chart(data(rows)).mark_text(baseline="top", **style).encode(x=x, y=y, text="label:N")
        for rows, style in styles
        if rows
    ]


def main() -> None:
    """Writes both pictures."""
    study = recorded_study()
    for theme in THEMES:
        file = FOLDER / f"front-{theme}.svg"
        file.write_text(picture(study, theme), encoding="utf-8")
        print(file)


if __name__ == "__main__":
    main()
