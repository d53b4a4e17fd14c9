"""What the driver keeps of hosts and where; tests/test_whole_study.py has real runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from study.config.study_config import load_study
from study.run import checkpoints
from study.run.driver import StudyRun
from tests.support.made_up_studies import write_study_file


def answers(*states: Mapping[str, bytes] | Exception) -> Any:
    """A keeper whose hosts answer so."""
    hosts = [SimpleNamespace(states=SimpleNamespace(remote=lambda one=one: one)) for one in states]
    return SimpleNamespace(hosts=SimpleNamespace(remote=lambda: hosts))


@pytest.mark.parametrize("trouble", [ray.exceptions.RayActorError(), TimeoutError("busy"), OSError("no space")])
def test_a_dead_host_costs_no_other_s_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def get(answer: Any, timeout: float) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(checkpoints, "ray", SimpleNamespace(get=get, exceptions=ray.exceptions))
    keeper = answers({"t000": b"first"}, trouble, {"t001": b"second"})
    checkpoints.save_states(tmp_path, keeper)
    kept = {file.read_bytes() for file in tmp_path.rglob("*.safetensors")}
    assert kept == {b"first", b"second"}


def test_a_confirmation_s_place_in_a_store_is_in_its_study_s(tmp_path: Path) -> None:
    config = load_study(write_study_file(tmp_path, storage="s3://bucket/runs"))
    urls = []
    for name in ("one", "other"):
        directory = tmp_path / name
        (directory / "confirm").mkdir(parents=True)
        (directory / "study.yaml").touch()
        for place in (directory, directory / "confirm"):
            urls.append(StudyRun(config, place, None, None).url)  # type: ignore[arg-type]
    assert urls == [
        "s3://bucket/runs/one", "s3://bucket/runs/one/confirm",
        "s3://bucket/runs/other", "s3://bucket/runs/other/confirm",
    ]  # fmt: skip
