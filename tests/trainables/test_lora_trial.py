"""What a trial's actor says of itself."""

from __future__ import annotations

from tests.lora_cases import lora_config
from trainables.lora_trial import LoraTrial


def test_a_trial_is_named_by_its_precision_and_before_it_has_one_by_its_class() -> None:
    """Ray asks for the name after a setup that was cut short as well."""
    trial = LoraTrial.__new__(LoraTrial)
    assert repr(trial) == "LoraTrial"
    trial._config = lora_config(precision="nf4")
    assert repr(trial) == "LoraTrial(nf4)"
