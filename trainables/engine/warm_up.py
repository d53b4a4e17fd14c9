"""Takes a scratch step before the first trial's, so that no trial waits for what a process does once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from search_spaces.trial_config import TrialConfig
from trainables.dataset.rows import Row
from trainables.engine.release import release
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import train_step


def warm_up(model: PackedModel, new_member: Callable[[TrialConfig, Any], TrainingMember], rows: Sequence[Row]) -> None:
    """Trains a scratch adapter on the shortest row: kernels are compiled, and libraries load what they need.

    Errors are left for a trial to meet, since a trial's record can say so.
    """
    shortest = min(range(len(rows)), key=lambda number: len(rows[number].tokens))
    targets = tuple(dict.fromkeys(name.rsplit(".", 1)[-1] for name in model.linears))
    config = TrialConfig("nf4", 8, 16, 0.1, targets, 1e-4)  # an adapter is the same over any precision
    try:
        train_step(model, [new_member(config, (((shortest,),),))], rows)
    except Exception as error:
        release(error)
