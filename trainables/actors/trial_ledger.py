"""Keeps what is known of trials: incarnations, statuses, predicted memory, and suspects that worked alone."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.gauges import PredictedMemory, predicted_host_bytes
from trainables.protocol import ResidentStatus

_MEASURING = ("loading", "measuring")


class TrialLedger:
    """What hosts and trials have told the keeper so far."""

    def __init__(self) -> None:
        self._incarnations: dict[str, int] = {}
        self._statuses: dict[str, tuple[str, ResidentStatus]] = {}  # by trial: the host that named it last, and how
        self._heard_of: set[str] = set()
        self._alone: set[str] = set()  # suspects at work
        self._deaths_alone: dict[str, int] = {}
        self._predicted: dict[str, PredictedMemory] = {}

    def next_incarnation(self, trial_id: str) -> int:
        """The number of a trial's next life, from 0 on: higher than all before."""
        self._incarnations[trial_id] = self._incarnations.get(trial_id, -1) + 1
        return self._incarnations[trial_id]

    def note_alone(self, trial_id: str, begins: bool) -> None:
        """Notes that a suspect begins, or has done, a unit of work alone."""
        (self._alone.add if begins else self._alone.discard)(trial_id)

    def note_host_death(self, trial_id: str) -> int:
        """Notes that a trial's host has died; returns how often one has while this trial was the only one at work."""
        if trial_id in self._alone:
            self._alone.discard(trial_id)
            self._deaths_alone[trial_id] = self._deaths_alone.get(trial_id, 0) + 1
        return self._deaths_alone.get(trial_id, 0)

    def note_statuses(self, host: str, statuses: Sequence[ResidentStatus]) -> None:
        """Replaces what a host said of its residents before, so that trials that left it are forgotten.

        A trial that another host has named since is that host's.
        """
        kept = {trial_id: known for trial_id, known in self._statuses.items() if known[0] != host}
        self._statuses = kept | {status.trial_id: (host, status) for status in statuses}
        self._heard_of |= {status.trial_id for status in statuses}

    def note_predicted(self, trial_id: str, predicted: PredictedMemory) -> None:
        """Takes in what a trial that begins is predicted to take."""
        self._predicted[trial_id] = predicted

    @property
    def trials(self) -> int:
        """How many trials any host has ever named."""
        return len(self._heard_of)

    @property
    def measuring(self) -> bool:
        """Whether a trial is being measured, or waits for it."""
        return any(status.stage in _MEASURING for _, status in self._statuses.values())

    def statuses(self) -> dict[str, ResidentStatus]:
        """The last status of every trial that is on a host, or was when its host died, by trial id."""
        return {trial_id: status for trial_id, (_, status) in self._statuses.items()}

    def predicted_host_bytes(self, statuses: Sequence[ResidentStatus]) -> dict[str, float]:
        """What a host with these residents is predicted to take, as `host_samples` wants it."""
        return predicted_host_bytes(statuses, self._predicted)
