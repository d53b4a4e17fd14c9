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

import vl_convert

from analysis.figures.front_rows import front_points
from analysis.figures.parts import Row
from analysis.figures.style import NEUTRAL, THEMES, TICKS, colour, emphasis, rank_size, scale, shape
from analysis.figures.vega_lite import Spec, category, chart, layer, mark, quantity
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
    padding = {"left": 5, "top": 5, "bottom": 5, "right": 25}  # where none of the fonts is there, another runs wider
    config = {**THEMES[theme], "font": FONT, "aria": False, "padding": padding}
    svg: str = vl_convert.vegalite_to_svg({**_chart(front_points(study)), "config": config})
    return svg + "\n"


def _chart(points: Sequence[Row]) -> Spec:
    across, upward = ([point[name] for point in points] for name in ("x", "y"))
    wide = scale(across, padding=MARGIN)
    position = {
        "x": quantity("x", "Peak memory of training alone (GiB, lower is better)", wide, tickCount=TICKS),
        "y": quantity("y", "Perplexity (lower is better)", scale(upward)),
    }
    hue = colour(points)
    look = {"color": hue, "fill": hue, "shape": shape(points), "size": rank_size(points), "fillOpacity": emphasis(0)}
    front_on_top = sorted(points, key=lambda point: bool(point["on_front"]))
    members = front_line(points)
    layers = [
        layer(members, position, mark("line", interpolate="step-after", color=NEUTRAL, strokeWidth=1.5)),
        layer(front_on_top, {**position, **look}, mark("point", strokeWidth=2, opacity=1)),
        *_labels(members, position),
    ]
    count = f"{len(points)} configurations trained on one H200; filled: the {len(members)} on the Pareto front"
    return chart(layers, {"text": TITLE, "subtitle": count}, WIDTH, HEIGHT)


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


def _labels(members: Sequence[Row], position: Spec) -> list[Spec]:
    """Labels below the line, where no mark can be: along it where it runs level for long enough, else to its left."""
    long, short = ([row for row in members if (row["room"] >= LABEL_PIXELS) == fits] for fits in (True, False))
    styles = ((long, {"align": "left", "dx": 2, "dy": 9}), (short, {"align": "right", "dx": -8, "dy": 5}))
    encoding = {**position, "text": category("label")}
    return [layer(rows, encoding, mark("text", baseline="top", **style)) for rows, style in styles if rows]


def main() -> None:
    """Writes both pictures."""
    study = recorded_study()
    for theme in THEMES:
        file = FOLDER / f"front-{theme}.svg"
        file.write_text(picture(study, theme), encoding="utf-8")
        print(file)


if __name__ == "__main__":
    main()
