"""What memory depends on: an adapter's load, and the rows of a pass."""

import json
from dataclasses import asdict

from search_spaces.trial_config import TrialConfig
from tests.support.trainables.memory_cases import Q_V
from trainables.memory.offload import RESIDENT, Offload
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass


def test_a_load_is_a_configurations():
    config = TrialConfig("nf4", 8, 16, 0.05, Q_V, 1e-4)
    assert AdapterLoad.of(config, 2, 100) == AdapterLoad(8, Q_V, True, 2, 100, 200)


def test_a_pass_is_padded_to_its_longest_row():
    loads = (AdapterLoad(8, Q_V, False, 2, 100, 150), AdapterLoad(4, Q_V, True, 3, 60, 20))
    one = Pass(loads)
    assert (one.rows, one.width, one.tokens, one.targets) == (5, 100, 500, 170)
    assert (Pass().rows, Pass().width, Pass().tokens, Pass().targets) == (0, 0, 0, 0)


def test_a_load_says_which_layers_carry_it():
    """Layers 1 and 2 of four: the backward pass goes through three; all layers: no numbers."""
    load = AdapterLoad(8, ("all",), False, 2, 100, 150)
    some = load.carried_by([(), ("q_proj",), ("q_proj", "up_proj"), ()])
    assert (some.target_modules, some.layers, some.reach) == (("q_proj", "up_proj"), 2, 3)
    assert load.carried_by([("q_proj",)] * 4) == AdapterLoad(8, ("q_proj",), False, 2, 100, 150)


def test_a_setting_is_read_from_json_with_and_without_what_waits_in_host_memory():
    setting = MemorySetting("nf4", "bf16", offload=Offload(9, True, False, True), optimizer="adamw_8bit")
    values = json.loads(json.dumps(asdict(setting)))
    assert MemorySetting.from_json(values) == setting
    assert hash(MemorySetting.from_json(values)) == hash(setting)
    assert MemorySetting.from_json({"precision": "nf4", "compute_precision": "bf16"}).offload == RESIDENT
