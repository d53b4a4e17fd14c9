"""`compare`: what stands side by side, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from study.cli.main import main
from study.errors import ConfigError
from study.records.record import TrialRecord
from study.reporting.comparison import compare
from tests.analysis.test_method_comparison import result, write
from tests.support.made_up_studies import make_config, make_record, write_study_file

SAME = {"quality": "a", "cost": "b"}


def study_in(folder: Path, factor: float = 1.0, comparable: dict[str, str] | None = None, **settings: Any) -> Path:
    """A study of three trials whose perplexities are multiplied."""
    folder.mkdir()
    write_study_file(folder, **settings)
    lines = []
    for index, rank in enumerate((2, 4, 8)):
        record = make_record(f"t{index}", make_config(rank=rank), perplexity=factor * (15 - rank / 2), accuracy=0.5)
        values = {**json.loads(record.to_json()), "comparable": comparable or SAME, "device": {"name": "Tesla T4"}}
        lines.append(TrialRecord.from_json(json.dumps(values)).to_json())
    (folder / "results.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_two_studies_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = study_in(tmp_path / "one"), study_in(tmp_path / "other", 0.9, seeds=[0, 1])
    assert main(["compare", str(one), str(other)]) == 0
    text = re.sub(r"(?<=\S) {2,}", " ", capsys.readouterr().out)  # columns, however wide
    for words in (
        "one: 3 trials: 3 complete; Tesla T4",  # both studies are called made-up: their folders tell them apart
        "other against one\n  Quality compares.\n  Cost compares.",
        "Complete in both (3):",
        "fp32, rank 8, q_v, learning rate 1e-3",
        "perplexity -10 % -10 % -10 % 3",
        "answer accuracy 0 points 0 points 0 points 3",
        "seeds – [0, 1]",
        "The front of both together:",
    ):
        assert words in text, words
    front = text.split("The front of both together:", 1)[1]
    assert "one t" not in front  # dominated everywhere


def test_where_only_quality_compares_cost_is_left_out(tmp_path: Path) -> None:
    one = study_in(tmp_path / "one")
    text = compare([one, study_in(tmp_path / "other", comparable={"quality": "a", "cost": "x"})])
    assert "Quality compares.\n  Cost does not compare: the engine or the masking has changed since one." in text
    assert "peak memory one" not in text
    assert "The front of both" not in text


def test_what_does_not_compare_is_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = study_in(tmp_path / "one")
    other = study_in(tmp_path / "other", comparable={"quality": "x", "cost": "y"}, hardware={"gpu": "cpu"})
    assert main(["compare", str(one), str(other)]) == 2
    output = capsys.readouterr()
    assert not output.out
    assert "must compare with one in quality or in cost; the engine or the masking has changed" in output.err
    assert "for cost also:" not in output.err  # its only reason is that of quality


def test_a_reason_of_cost_alone_is_said_once(tmp_path: Path) -> None:
    one = study_in(tmp_path / "one")
    other = study_in(tmp_path / "other", comparable={"quality": "x", "cost": "y"}, training={"micro_batch_size": 3})
    with pytest.raises(
        ConfigError, match="the engine or the masking has changed since one; for cost also: micro_batch"
    ):
        compare([one, other])


def test_published_results_stand_beside_and_never_compare(tmp_path: Path) -> None:
    (tmp_path / "peft").mkdir()
    published = write(tmp_path / "peft", result(), result("ia3", peft_config={"peft_type": "IA3"}))
    text = compare([study_in(tmp_path / "one"), published])
    assert (
        "Beside them, PEFT method_comparison (meta-llama/Llama-3.2-3B on NVIDIA L40S). Nothing of it compares" in text
    )
    assert "lora/llama-3.2-3B-rank32   bf16, rank 32, q_v, learning rate 1e-4          48.2 %       20.74 GiB" in text
    assert "Left out, since no plain LoRA with AdamW: 1." in text


def test_one_study_alone_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be two or more, at least one of them a study's directory"):
        compare([study_in(tmp_path / "one")])
    (tmp_path / "peft").mkdir()
    write(tmp_path / "peft", result())
    with pytest.raises(ConfigError, match="must be two or more"):
        compare([tmp_path / "peft", tmp_path / "peft"])
    with pytest.raises(ConfigError, match="must be a study's directory"):
        compare([tmp_path / "one", tmp_path / "nothing"])
