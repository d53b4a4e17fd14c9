"""A base model of the hub: what its errors say, that a commit stands for the weights, and the licence's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import huggingface_hub
import pytest
from huggingface_hub import errors

from tests.support.trainables.base_folders import config_folder
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.files import inspect, read_config, weights_folder
from trainables.base_model.hub import base_licence
from trainables.base_model.location import ModelFiles, locate
from trainables.settings import BaseModelSettings

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _settings(path: Path | str, revision: str = "main") -> BaseModelSettings:
    return BaseModelSettings(str(path), revision)


def _http_error(kind: type[errors.HfHubHTTPError]) -> Exception:
    error = kind.__new__(kind)  # its constructor wants the HTTP library's own response
    Exception.__init__(error, "refused\nmore")
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_http_error(errors.GatedRepoError), r"gated: request access on its page, .*/a/b, then set HF_TOKEN"),
        (_http_error(errors.RepositoryNotFoundError), "the hub has no 'a/b'. Check the spelling; for a private model"),
        (_http_error(errors.RevisionNotFoundError), "branch, tag or commit of 'a/b'; 'main' is none"),
        (_http_error(errors.HfHubHTTPError), r"'a/b' could not be fetched from the hub: refused\. Try"),
        (errors.LocalEntryNotFoundError("x"), r"cannot be reached .* give a local folder"),
        (TimeoutError("timed out"), r"cannot be reached .* give a local folder"),
        (RuntimeError("timed out"), r"could not be fetched from the hub: timed out\. Try again later"),
        (errors.OfflineModeIsEnabled("x"), r"cannot be reached .* give a local folder"),
    ],
)  # fmt: skip
def test_the_hubs_errors_carry_their_remedy(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(BaseModelError, match=message):
        read_config(locate(_settings("a/b")))


def test_a_hub_model_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = config_folder(tmp_path / "snapshots" / COMMIT)
    asked: list[dict[str, Any]] = []

    def download(repo_id: str, **kwargs: Any) -> str:
        asked.append({"repo_id": repo_id, **kwargs})
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    info = inspect(_settings("a/b", "v2"))
    assert (info.path, info.revision, info.sha256) == ("a/b", COMMIT, COMMIT)
    assert all(call["revision"] == "v2" and "*.safetensors" not in call["allow_patterns"] for call in asked)
    assert weights_folder(locate(_settings("a/b", "v2"))) == folder
    assert "*.safetensors" in asked[-1]["allow_patterns"]
    assert not any("bin" in pattern or "py" in pattern for pattern in asked[-1]["allow_patterns"])


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": "---\nlicense: apache-2.0\ntags: [a]\n---\n# Model\n", "LICENSE": "x"}, "apache-2.0"),
        ({"README.md": "---\n: broken: [\n---\n", "LICENSE.md": "x"}, "LICENSE.md"),
        ({"README.md": "# no front matter\n---\nlicense: mit\n---\n"}, None),
        ({}, None),
        ({"README.md": "---\nlicense: [a, b]\n---\n"}, None),
        ({"README.md": "---\n" + "[" * 5000 + "\n---\n", "LICENSE": "x"}, "LICENSE"),
        ({"README.md": "---\nlicense: |\n  mit\n  # and more\n---\n"}, "mit # and more"),
        ({"README.md": "---\nlicense: mit\n---\n" + "x" * 2**20, "LICENSE": "x"}, "LICENSE"),
    ],
)
def test_a_folders_licence(files: dict[str, str], licence: str | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert base_licence(ModelFiles("folder", str(tmp_path))) == licence


def test_a_hub_that_cannot_be_asked_names_no_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    assert base_licence(ModelFiles("hub", "some/model", "abc")) is None


def test_a_gguf_names_its_licence(tmp_path: Path) -> None:
    for licence in ("apache-2.0", None):
        writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
        if licence:
            writer.add_license(licence)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        assert base_licence(ModelFiles("gguf", str(tmp_path / "model.gguf"))) == licence
