"""Names what a trial's memory and speed depend on."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.trial_config import TrialConfig


@dataclass(frozen=True, order=True)
class Footprint:
    """What of a configuration decides its memory and speed; batch, length and base model are the study's.

    Configurations of one footprint cost the same, whatever their learning rate, alpha or seed, so that each footprint
    is predicted once and measured once. `target_modules` are sorted; of the dropout only whether there is any counts.
    Sorting brings those next to each other whose updates share products.
    """

    precision: str
    target_modules: tuple[str, ...]
    rank: int
    has_dropout: bool

    @classmethod
    def of(cls, config: TrialConfig) -> Footprint:
        """A configuration's footprint."""
        return cls(config.precision, tuple(sorted(config.target_modules)), config.rank, config.lora_dropout > 0)
