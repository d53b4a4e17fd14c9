"""Vega-Lite's specifications as plain JSON: channels, marks over their rows, and layered charts.

Their grammar is https://vega.github.io/vega-lite/docs/spec.html. A library that writes the same JSON from objects of
its own, such as Altair, takes longer to import than a report of eight trials; it checks the figures in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Spec = dict[str, Any]

EXACT = 2**53  # up to where JavaScript's numbers hold every integer
MAJOR_VERSION = 6
SCHEMA = f"https://vega.github.io/schema/vega-lite/v{MAJOR_VERSION}.json"  # a name, never loaded


def quantity(field: str, title: str, scale: Spec, **axis: Any) -> Spec:
    """Returns a position by a number of the rows, with its axis."""
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, **({"axis": axis} if axis else {})}


def category(field: str, **options: Any) -> Spec:
    """Returns a channel by a value of the rows that has neither order nor size."""
    return {"field": field, "type": "nominal", **options}


def value(constant: Any) -> Spec:
    """Returns a channel that is the same for all rows; for a position `width` and `height` are the frame's ends."""
    return {"value": constant}


def either(test: str, then: Any, otherwise: Any) -> Spec:
    """Returns a channel that has one value for rows that pass the test, such as `datum.on_front`, else the other."""
    return {"condition": {"test": test, "value": then}, "value": otherwise}


def mark(kind: str, **look: Any) -> Spec:
    """Returns what a layer draws, such as `line`, and how it looks."""
    return {"mark": {"type": kind, **look}}


def layer(rows: Iterable[Mapping[str, Any]], encoding: Spec, *marks: Spec) -> Spec:
    """Returns one layer of a chart: its rows, drawn as each of the marks, one over the other."""
    drawn = marks[0] if len(marks) == 1 else {"layer": list(marks)}
    values = [{name: _drawable(one) for name, one in row.items()} for row in rows]
    return {"data": {"values": values}, "encoding": encoding, **drawn}


def _drawable(value: Any) -> Any:
    """A number of JavaScript's for one that it cannot hold: a file's integers may have any number of digits."""
    return float(value) if type(value) is int and abs(value) > EXACT else value


def chart(layers: Sequence[Spec], title: Any, width: int | str, height: int) -> Spec:
    """Returns a whole specification; sizes are in pixels, a width of `container` is the page's own."""
    return {"$schema": SCHEMA, "title": title, "width": width, "height": height, "layer": list(layers)}
