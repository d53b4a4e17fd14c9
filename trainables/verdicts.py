"""Words and keeps the verdict that a footprint runs out of memory alone, and what it holds under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trainables.limits import MOST_CONTEXT_BYTES
from trainables.memory.offload import RESIDENT, Offload
from trainables.protocol import ENGINE_VERSION
from trainables.settings import Optimizer, TrialSettings

# Where more of the card is not ours than the process' own context, another process may have brought a trial to its end,
# and another trial of its footprint may fit.
MOST_SHARED_BYTES = MOST_CONTEXT_BYTES


@dataclass(frozen=True)
class Conditions:
    """What decides, beside a configuration's footprint, whether it runs out of memory."""

    memory_limit_bytes: int | None
    cards: int  # that hold the base model together; 0: a CPU
    engine: int
    micro_batch_size: int
    gradient_checkpointing: bool
    max_tokens: int
    data: str  # the fingerprint: a pass is as wide as the longest row
    optimizer: Optimizer = "adamw"
    offload: Offload = RESIDENT

    @classmethod
    def of(cls, settings: TrialSettings, cards: int, fingerprint: str, offload: Offload = RESIDENT) -> Conditions:
        """The conditions of a study's settings over data of that fingerprint, its base model over so many cards."""
        training, limit = settings.training, settings.hardware.memory_limit_bytes
        batch = training.micro_batch_size, training.gradient_checkpointing
        data = settings.dataset.max_tokens, fingerprint
        return cls(limit, cards, ENGINE_VERSION, *batch, *data, training.optimizer, offload)

    def to_dict(self) -> dict[str, Any]:
        """As a record holds them, JSON-ready: without what is as earlier versions knew it alone."""
        usual = [one.name for one in fields(self) if getattr(self, one.name) == one.default]
        return {name: value for name, value in asdict(self).items() if name not in usual}

    def hold(self, facts: Mapping[str, Any]) -> bool:
        """Whether a record's facts were found under these conditions; not where they do not say."""
        return facts.get("conditions") == self.to_dict()


@dataclass(frozen=True)
class RanOut:
    """A trial that ran out of memory alone, with its record's facts (`infeasible`)."""

    trial_id: str
    facts: Mapping[str, Any]

    @property
    def of_the_footprint(self) -> bool:
        """Whether it holds for other trials of the footprint: not where another process held the card."""
        return (self.facts.get("shared_bytes") or 0) <= MOST_SHARED_BYTES

    @property
    def first(self) -> str:
        """The trial that did run out, where this one was ended for another's sake."""
        return str(self.facts.get("ran_out") or self.trial_id)

    def reason_of_own(self) -> str:
        """The reason of the trial that ran out."""
        reason = f"out of memory while {self.facts['moment']}, alone on the device and tried twice"
        if self.of_the_footprint:
            return reason
        return f"{reason}; {self.facts['shared_bytes'] / 2**30:.2f} GiB of the card were not this study's"

    def reason_of_kin(self, not_done: str = "started") -> str:
        """The reason of another trial of the footprint, which was not started, or not measured."""
        return f"{self.first} of the same footprint ran out of memory alone, so this one was not {not_done}"

    def facts_of_kin(self) -> dict[str, Any]:
        """The facts of another trial of the footprint, which name the trial that did run out."""
        return {**self.facts, "ran_out": self.first}
