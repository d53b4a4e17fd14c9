"""No credential gets into a study: its file is copied to results, jobs and reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.config.study_config import ConfigError, load_study, to_yaml_text
from tests.support.made_up_studies import write_study_file

SECRET = "sEcret1234567890abcdefXYZ"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (f"storage=s3://KEY:{SECRET}@bucket/runs", "storage"),
        (f"storage=s3://bucket/runs?secret_key={SECRET}", "storage"),
        (f"base_model.path=https://user:{SECRET}@host/model", "base_model.path"),
        (f"dataset.train_file=https://host/x.jsonl?sig={SECRET}", "dataset.train_file"),
        (f"name=hf_{SECRET}", "name"),
        (f"generation.prompts=[plain, 'use Bearer {SECRET}']", "generation.prompts.1"),
        (f"search={{algorithm: random, trials: 4, warm_start: [s3://K:{SECRET}@b/x]}}", "search.warm_start.0"),
    ],
)
def test_a_value_with_a_credential_is_refused_once_and_never_shown(tmp_path: Path, override: str, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_study(write_study_file(tmp_path, "org/model"), [override])
    said = str(refused.value)
    assert SECRET not in said
    assert [fault.key for fault in refused.value.faults] == [key]
    assert "must hold no credentials" in said
    assert "environment of the machines (HF_TOKEN" in said


def test_a_key_with_a_credential_is_refused_and_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_study(write_study_file(tmp_path, "org/model", **{f"hf_{SECRET}": 1}))
    assert SECRET not in str(refused.value)


def test_ordinary_studies_pass_and_come_back_as_they_are(tmp_path: Path) -> None:
    prompts = ["What is a bearer token?", "password: how long?", "user@example.com asks: s3://bucket/key?"]
    changes = {"storage": "s3://bucket/runs?region=eu-west-1", "generation": {"prompts": prompts}}
    study = load_study(write_study_file(tmp_path, "sk-learn/model", **changes))
    (tmp_path / "again.yaml").write_text(to_yaml_text(study), encoding="utf-8")
    assert load_study(tmp_path / "again.yaml") == study
    assert list(study.trial.generation.prompts) == prompts
