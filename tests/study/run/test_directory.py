"""Which adapters a study's directory keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.run.directory import prune_adapters
from tests.support.made_up_studies import make_record


@pytest.mark.parametrize(
    ("policy", "kept"), [("front", {"t2", "t3"}), ("complete", {"t1", "t2", "t3"}), ("none", set())]
)
def test_adapters_are_kept_by_the_policy(tmp_path: Path, policy: str, kept: set[str]) -> None:
    for trial_id in ("t0", "t1", "t2", "t3"):
        (tmp_path / "adapters" / trial_id).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "adapters" / "link").symlink_to(tmp_path / "elsewhere")
    records = [make_record("t0", status="failed"), *(make_record(f"t{number}") for number in (1, 2, 3))]
    prune_adapters(tmp_path, policy, records, ["t2", "t3"])
    assert {path.name for path in (tmp_path / "adapters").iterdir()} == kept | {"link"}
    assert (tmp_path / "elsewhere").is_dir()


def test_no_adapters_at_all_are_nothing_to_prune(tmp_path: Path) -> None:
    prune_adapters(tmp_path, "front", [], [])
    assert not (tmp_path / "adapters").exists()
