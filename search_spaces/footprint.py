"""Names what a trial's memory and speed depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search_spaces.layer_ranges import ALL
from search_spaces.trial_config import TrialConfig


@dataclass(frozen=True, order=True)
class Footprint:
    """What of a configuration decides its memory and speed; batch, length and base model are the study's.

    Configurations of one footprint cost the same, whatever their learning rate, alpha or seed, so that each footprint
    is predicted once and measured once. `target_modules` are sorted; of the dropout only whether there is any counts.
    `layers` are a text: `all`, `16-31`. Sorting brings those next to each other whose updates share products.
    """

    precision: str
    target_modules: tuple[str, ...]
    rank: int
    has_dropout: bool
    layers: str = ALL

    @classmethod
    def of(cls, config: TrialConfig) -> Footprint:
        """A configuration's footprint."""
        modules = tuple(sorted(config.target_modules))
        return cls(config.precision, modules, config.rank, config.lora_dropout > 0, config.layer_range)

    def to_dict(self) -> dict[str, Any]:
        """Its values; without `layers` where they are all, so that the keys of what is kept stay what they were."""
        values = dict(vars(self))
        return {name: value for name, value in values.items() if name != "layers" or value != ALL}
