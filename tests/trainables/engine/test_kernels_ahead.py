"""Kernels are compiled beside the loading of weights, and whatever goes wrong there harms nobody."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
import torch

from tests.support.made_up_studies import save_tiny_model
from trainables.engine import kernels_ahead
from trainables.engine.kernels_ahead import kernels_beside
from trainables.kernels.ahead import ModelWidths
from trainables.settings import BaseModelSettings
from trainables.timeline import timeline

CARD = torch.device("cuda")


@pytest.fixture
def settings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> BaseModelSettings:
    """Those of a tiny Llama, and a card that builds kernels."""
    monkeypatch.setattr(kernels_ahead, "compute_dtype", lambda precision, device: torch.float16)
    monkeypatch.setattr(kernels_ahead, "kernels_on", lambda device: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return BaseModelSettings(str(save_tiny_model(tmp_path / "model")))


def test_they_are_there_when_the_weights_are(settings: BaseModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    loads, compiled = threading.Event(), []

    def compile_ahead(widths: ModelWidths, dtype: torch.dtype, device: torch.device) -> None:
        assert loads.wait(10), "both at once"
        compiled.append((widths, dtype, device))

    monkeypatch.setattr(kernels_ahead, "compile_ahead", compile_ahead)
    with kernels_beside(settings, "nf4", CARD):
        assert compiled == []
        loads.set()
    ((widths, dtype, device),) = compiled
    assert (dtype, device) == (torch.float16, CARD)
    assert widths.layer is not None
    assert (widths.layer.hidden, widths.layer.intermediate, widths.layer.heads) == (32, 64, 4)
    assert timeline.stages()[-1].name == "kernels"


@pytest.mark.parametrize("broken", ["compile_ahead", "kernel_widths"])
def test_a_failure_is_told_once_and_harms_nobody(
    broken: str, settings: BaseModelSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no such card")

    monkeypatch.setattr(kernels_ahead, "compile_ahead", lambda *arguments: None)
    monkeypatch.setattr(kernels_ahead, broken, fail)
    loaded = []
    with caplog.at_level(logging.DEBUG), kernels_beside(settings, "nf4", CARD):
        loaded.append(1)
    assert loaded
    assert [record.levelname for record in caplog.records if "no such card" in record.message] == ["DEBUG"]


def test_a_load_that_fails_says_so_itself(settings: BaseModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_ahead, "compile_ahead", lambda *arguments: None)
    with pytest.raises(KeyError, match="weights"), kernels_beside(settings, "nf4", CARD):
        raise KeyError("weights")


def test_nothing_is_compiled_on_a_cpu(settings: BaseModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_ahead, "read_config", lambda files: pytest.fail("nothing is to be read"))
    with kernels_beside(settings, "nf4", torch.device("cpu")):
        assert not [thread for thread in threading.enumerate() if thread.name == "kernels"]
