"""A trial's work, from a data set's statistics."""

import pytest

from study.plan.workload import Workload
from tests.support.plan_cases import LLAMA_3_8B, PUBMEDQA
from trainables.settings import TrainingSettings


def test_a_workload_comes_from_a_datasets_statistics():
    found = Workload.of(LLAMA_3_8B, TrainingSettings(), PUBMEDQA, double_quantization=False)
    asked = Workload.of(LLAMA_3_8B, TrainingSettings(), PUBMEDQA, base_in_host_memory="always")
    assert (found.longest, found.train_rows, found.train_tokens, found.eval_tokens) == (512, 450, 153_000, 17_000)
    assert found.target_share == pytest.approx(70 / 340)
    assert not found.double_quantization
    assert (found.base_in_host_memory, asked.base_in_host_memory) == ("auto", "always")
