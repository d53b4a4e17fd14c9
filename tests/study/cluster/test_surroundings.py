"""What is wrong with the environment is said before a study's directory is made, all of it at once."""

from __future__ import annotations

import pytest

from study.cluster import surroundings
from study.cluster.surroundings import runs_here, why_not
from study.errors import ConfigError
from tests.support.border.listeners import HEAD, Listener


@pytest.fixture(autouse=True)
def well(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")


def test_alone_where_no_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "ray_address", lambda: "local")
    assert runs_here()
    assert why_not() == ""


def test_with_a_cluster_the_place_of_rays_own_sockets_is_its_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener(HEAD) as head:
        monkeypatch.setenv("RAY_ADDRESS", head.address)
        monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 100)
        assert not runs_here()


def test_all_faults_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "x")
    with pytest.raises(ConfigError) as refused:
        runs_here()
    assert [fault.file for fault in refused.value.faults] == ["CUDA_VISIBLE_DEVICES", "RAY_ADDRESS"]
    assert "\n" not in why_not()
