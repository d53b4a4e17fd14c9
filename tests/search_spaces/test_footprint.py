"""Footprints differ where what is updated differs, and are written as before where all layers are meant."""

from __future__ import annotations

from dataclasses import asdict, replace

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig

CONFIG = TrialConfig.from_dict({
    "precision": "nf4", "rank": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": "q_v",
    "learning_rate": 1e-3,
})  # fmt: skip


def test_what_is_updated_is_told_apart() -> None:
    modules = [("q_proj", "v_proj"), ("q_proj",), ("self_attn.q_proj",), (r"re:layers\.[01]\..*",)]
    configs = [
        replace(CONFIG, target_modules=one, layers=layers)
        for one in modules
        for layers in (None, "first_half", "last_half", (0, 3), (0, 30))
    ]
    found = list(map(Footprint.of, configs))
    assert len(set(found)) == len(configs)
    assert len(sorted(found)) == len(configs)  # an order, whatever the layers


def test_order_alpha_and_seed_make_no_other_footprint() -> None:
    other = replace(CONFIG, target_modules=("v_proj", "q_proj"), lora_alpha=1, seed=3, learning_rate=1e-4)
    assert Footprint.of(other) == Footprint.of(CONFIG)


def test_the_key_of_what_is_kept_is_that_of_earlier_versions() -> None:
    """As a dataclass without layers wrote it."""
    whole = {"precision": "nf4", "target_modules": ("q_proj", "v_proj"), "rank": 8, "has_dropout": True}
    assert list(Footprint.of(CONFIG).to_dict().items()) == list(whole.items())
    part = Footprint.of(replace(CONFIG, layers=(3, 4)))
    assert part.to_dict() == asdict(part) == {**whole, "layers": "3-4"}
