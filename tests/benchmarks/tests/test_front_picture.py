"""The README's picture is what its command draws, shows every recorded configuration, and its labels keep apart."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from analysis.figures.style import THEMES
from tests.benchmarks.front_picture import FOLDER, RECORDING, picture, recorded_study

MARK = re.compile(r'<path transform="translate\(([\d.]+),([\d.]+)\)" d="[^"]+" fill="(#\w+)" fill-opacity="([01])"')
TEXT = re.compile(r'<text text-anchor="(\w+)" transform="translate\(([-\d.]+),([-\d.]+)\)[^>]*>([^<]+)</text>')
LETTER_PIXELS, LINE_PIXELS = 6, 9  # of a label in 12 pixels' Arial: a letter's mean width, an x-height and ascender
PLACES = 0.6  # pixels that positions may differ by, where another version of Vega rounds in another way


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    """Both pictures as the command draws them now."""
    study = recorded_study()
    return {theme: picture(study, theme) for theme in THEMES}


def marks(svg: str) -> list[tuple[float, float, str, str]]:
    """Each configuration's mark: its place, its colour, and whether it is filled."""
    group = svg.split('class="mark-symbol role-mark', 1)[1].split("</g>", 1)[0]  # without the legends' symbols
    return [(float(x), float(y), hue, filled) for x, y, hue, filled in MARK.findall(group)]


def labels(svg: str) -> list[tuple[float, float, float, float]]:
    """The boxes of the front's labels: left, top, right, bottom."""
    boxes = []
    for anchor, x, y, text in TEXT.findall(svg):
        if text.startswith("rank "):
            width = LETTER_PIXELS * len(text)
            left = float(x) - (width if anchor == "end" else 0)
            boxes.append((left, float(y) - LINE_PIXELS, left + width, float(y)))
    return boxes


@pytest.mark.parametrize("theme", THEMES)
def test_the_committed_picture_is_what_the_command_draws(drawn: dict[str, str], theme: str) -> None:
    file = FOLDER / f"front-{theme}.svg"
    committed = file.read_text(encoding="utf-8")
    remedy = "Draw it anew: python -m tests.benchmarks.front_picture"
    assert [text for *_, text in TEXT.findall(committed)] == [text for *_, text in TEXT.findall(drawn[theme])], remedy
    assert len(marks(committed)) == len(marks(drawn[theme])), remedy
    for old, new in zip(marks(committed), marks(drawn[theme]), strict=True):
        assert old[:2] == pytest.approx(new[:2], abs=PLACES), remedy
        assert old[2:] == new[2:], remedy
    assert file.stat().st_size < 60 * 1024


def test_every_configuration_is_there_and_the_front_is_filled(drawn: dict[str, str]) -> None:
    curves = json.loads(RECORDING.read_text(encoding="utf-8"))["curves"]
    ends = [(curve["memory_bytes"], curve["curve"][-1][1]) for curve in curves]

    def dominated(one: tuple[float, float]) -> bool:
        return any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in ends)

    there = marks(drawn["light"])
    assert len(there) == len(ends)
    assert sum(filled == "1" for *_, filled in there) == sum(not dominated(one) for one in ends)
    memories, across = sorted(memory for memory, _ in ends), sorted(x for x, *_ in there)
    assert across == pytest.approx(_spread(memories, across), abs=1e-6)
    losses, down = sorted(-loss for _, loss in ends), sorted(y for _, y, *_ in there)
    assert down == pytest.approx(_spread(losses, down), abs=1e-6)


def _spread(values: list[float], places: list[float]) -> list[float]:
    """The values on a linear axis whose ends are the outermost places."""
    low, high = min(values), max(values)
    return [min(places) + (value - low) / (high - low) * (max(places) - min(places)) for value in values]


def test_labels_cover_neither_each_other_nor_a_mark(drawn: dict[str, str]) -> None:
    boxes = labels(drawn["light"])
    assert len(boxes) == sum(filled == "1" for *_, filled in marks(drawn["light"]))
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    for left, top, right, bottom in boxes:
        assert not [(x, y) for x, y, *_ in marks(drawn["light"]) if left <= x <= right and top <= y <= bottom]


def test_the_two_pictures_differ_in_the_colours_of_text_and_grid_alone(drawn: dict[str, str]) -> None:
    assert drawn["light"] != drawn["dark"]
    light, dark = (re.sub(r'(fill|stroke)="#\w+"', "", drawn[theme]) for theme in ("light", "dark"))
    assert light == dark
