"""The same model as safetensors and as GGUF: the same rows, and one perplexity."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small_models import shared
from trainables.base_model.load import load_base_model
from trainables.dataset.prepared import PreparedDataset, prepare_dataset
from trainables.measure.evaluation import Evaluation, evaluate
from trainables.packed.packed_model import PackedModel
from trainables.settings import BaseModelSettings, DatasetSettings

QUANTIZED = 0.01  # relative: the file's blocks, and bfloat16


def measured(model: Path, data: DatasetSettings) -> tuple[PreparedDataset, Evaluation]:
    base = load_base_model(BaseModelSettings(str(model)), "fp32", "cpu")
    dataset = prepare_dataset(data, base.tokenizer)
    rows = dataset.eval.rows
    return dataset, evaluate(PackedModel(base.model.train()), None, rows, dataset.candidate_labels, 512)


def test_safetensors_and_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path))
    models = [shared("models/stories260K"), shared("cases/gguf-folder/repo/m.gguf")]
    source = str(shared("data/pubmedqa/ori_pqal.json"))
    data = DatasetSettings("pubmedqa", source, max_tokens=256, train_examples=8, eval_examples=24, test_examples=0)
    (one, plain), (other, converted) = (measured(model, data) for model in models)
    assert one.fingerprint == other.fingerprint
    assert [row.answers for row in one.eval.rows] == [row.answers for row in other.eval.rows]
    assert converted.perplexity == pytest.approx(plain.perplexity, rel=QUANTIZED)
