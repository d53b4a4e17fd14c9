"""Memory as a search knows it: predicted by footprint, without weights, and fit to be pickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from study.config.study_config import load_study
from study.plan.known_memory import KnownMemory
from tests.support.made_up_studies import make_config, save_tiny_model, write_study_file


def test_memory_is_known_of_every_configuration_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_tiny_model(tmp_path / "model")
    config = load_study(write_study_file(tmp_path, model))
    known = pickle.loads(pickle.dumps(KnownMemory(config)))  # as Tune does
    peaks = [known(make_config("nf4", rank)) for rank in (2, 4, 8)]
    # 16 bytes for each parameter of an adapter: equal steps for each doubling's parameters
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.05)
    assert peaks[0] < peaks[2]
    monkeypatch.setattr("study.plan.known_memory._workload", None)  # it is not looked at again
    assert known(make_config("nf4", 8, learning_rate=1e-4, seed=5)) == peaks[2]
    assert pickle.loads(pickle.dumps(known))(make_config("nf4", 2)) == peaks[0]
