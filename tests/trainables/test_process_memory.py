"""A CPU study's predicted memory, the whole process', against the resident peak of a process like a host's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_models import shared

CHECKOUT = Path(__file__).resolve().parents[2]
HOST = """
import json, sys
import ray, torch
from search_spaces.trial_config import TARGET_SETS, TrialConfig
from trainables.base_model import load_base_model
from trainables.dataset import Row
from trainables.engine import Engine
from trainables.memory_model import predict
from trainables.memory_setting import AdapterLoad, MemorySetting
from trainables.model_shape import ModelShape
from trainables.packed_lora import PackedModel
from trainables.packed_training import TrainingMember
from trainables.resources import footprint_plan, measure_footprint
from trainables.settings import BaseModelSettings, TrainingSettings

torch.set_num_threads(1)
precision, folder = sys.argv[1:]
base = load_base_model(BaseModelSettings(folder), precision, "cpu")
base.model.train()
model = PackedModel(base.model)
config = TrialConfig(precision, 8, 16, 0.05, TARGET_SETS["all_linear"], 1e-3)
rows = [Row((5,) * 96, 48, None, str(number)) for number in range(8)]
member = TrainingMember(model.new_adapter(config), TrainingSettings(), footprint_plan(rows, 2), False)
measured = measure_footprint(model, member, rows, (), 0).peak_memory_bytes
compute = {torch.float32: "fp32", torch.bfloat16: "bf16"}[base.compute_dtype]
setting = MemorySetting(precision, compute, gradient_checkpointing=False, device="cpu", attention="cpu")
load = AdapterLoad.of(config, 2, 96, 96)
print(json.dumps([measured, predict(ModelShape.from_info(base.info), setting, load).peak_memory_bytes]))
"""


def test_a_process_is_within_fifteen_percent(tmp_path):
    folder = shared("models/stories15M")
    environment = {**os.environ, "LORA_FRONTIER_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", HOST, "nf4", str(folder)]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    measured, predicted = json.loads(done.stdout.splitlines()[-1])
    assert predicted == pytest.approx(measured, rel=0.15)
