"""Datasets of the hub, without a network: refusals, and the cache alone where nothing is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.trainables.raw_rows import fake_hub
from trainables.dataset.files import DatasetError
from trainables.dataset.hub import hub_rows, local_file
from trainables.dataset.sources import load_examples
from trainables.settings import DatasetSettings


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("Couldn't reach it"), r"must be reachable; .*Couldn't reach it.*give the file's path instead"),
        (FileNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), r"is gated\. Ask for access .*HF_TOKEN"),
        (FileNotFoundError("Dataset 'a/b' doesn't exist"), r"a file, or a dataset on the hub .*Check its spelling"),
        (ValueError("BuilderConfig 'pqa_labeled' not found"), "pqa_labeled"),
    ],
)
def test_the_hubs_refusals(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def load(*_: str) -> None:
        raise error

    fake_hub(monkeypatch, load)
    with pytest.raises(DatasetError, match=message):
        load_examples(DatasetSettings("pubmedqa", source="a/b"))


def test_without_a_network_only_the_cache_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    seen = []
    fake = fake_hub(monkeypatch, lambda *_: seen.append(fake.config.HF_HUB_OFFLINE) or {"train": []})
    monkeypatch.setattr("huggingface_hub.dataset_info", unreachable)
    assert hub_rows("a/b", "c") == {"train": []}
    assert seen == [True]
    assert fake.config.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("source", "is_hub_id"),
    [("qiaojin/PubMedQA", True), ("a.b/c-d_e", True), ("data/rows.json", False), ("data/rows.jsonl", False),
     ("./data", False), ("/data/rows", False), ("a/b/c", False), ("one", False), ("", False)],
)  # fmt: skip
def test_a_hub_id_is_told_from_a_path(
    source: str, is_hub_id: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_file(source) == (None if is_hub_id else Path(source))


def test_a_folder_of_a_hub_ids_name_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert local_file("a/b") == Path("a/b")
