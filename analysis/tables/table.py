"""A table of texts, with its caption."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of texts: a title, what to see in it, and how many of the columns after the first are words."""

    name: str
    title: str
    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1

    def to_csv(self) -> str:
        """Headings and rows as CSV."""
        out = io.StringIO()
        csv.writer(out).writerows([self.headings, *self.rows])
        return out.getvalue()
