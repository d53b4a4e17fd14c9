"""Study files that are no study files: refused at once, with where, what and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.border.hostile import Hostile, table


def plan_bytes(content: bytes, name: str = "study.yaml") -> Callable[[Path, Path], list[str]]:
    """Returns a maker that writes a study file of these bytes and plans it."""

    def make(folder: Path, model: Path) -> list[str]:
        (folder / name).write_bytes(content)
        return ["plan", str(folder / name)]

    return make


@table(
    Hostile("nothing", plan_bytes(b""), ("must",)),
    Hostile("random bytes", plan_bytes(bytes(range(256))), ("UTF-8",)),
)
def test_what_is_no_study_file_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
