"""Refuses trials predicted not to fit: they are never started, told to the search, and recorded as infeasible."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from search_spaces.trial_config import TrialConfig
from study.hardware.gpu_catalogue import is_of_kind
from study.plan.fitting import Fit, infeasible_facts
from study.plan.forecast import Forecast
from study.plan.offloading.words import refusal_words
from study.plan.remedies import remedies
from study.records.record import TrialRecord
from study.search.study_search import Proposal, StudySearch
from trainables.settings import TrialSettings
from trainables.verdicts import Conditions, RanOut


class Admission:
    """A study's search without the trials that cannot fit: `ask` returns the next one that may start.

    `record` keeps the record of each trial that may not. `wanted` narrows a grid to the configurations of one phase;
    `cards` is how many a search's phase gives to each base model, beyond which its hosts cannot go.
    """

    def __init__(
        self,
        study: str,
        search: StudySearch,
        forecast: Forecast,
        record: Callable[[TrialRecord], Any],
        wanted: Callable[[TrialConfig], bool] = lambda config: True,
        cards: int | None = None,
    ) -> None:
        self._study = study
        self._search = search
        self._forecast = forecast
        self._record = record
        self._wanted = wanted
        self._cards = cards
        self.tell = search.tell  # how trials end is the search's own business

    def __getstate__(self) -> dict[str, Any]:
        """Returns no state: Tune keeps a copy of its searcher that a resumed study does not use."""
        return {}

    def ask(self, precision: str) -> Proposal | None:
        """Returns the next trial of that precision that fits; None where all have been asked for."""
        while (proposal := self._search.ask(precision, self._wanted)) is not None:
            if self._admits(proposal):
                return proposal
        return None

    def admitted(self, proposals: Iterable[Proposal]) -> list[Proposal]:
        """Returns those of earlier proposals that are of this phase and fit, and refuses the others of it."""
        return [one for one in proposals if self._wanted(one.config) and self._admits(one)]

    def _admits(self, proposal: Proposal) -> bool:
        one, verdict = self._forecast.fit(proposal.config, self._cards), verdict_on(proposal.config, self._forecast)
        if one.fits and verdict is None:
            return True
        if verdict is not None:
            record = kin_record(self._study, proposal, verdict)
        else:
            record = refused_record(self._study, proposal, one, self._forecast, self._cards)
        self._record(record)
        self._search.tell(proposal.trial_id, "infeasible", None, record.reason)
        return False


def refuse_what_never_fits(
    study: str, search: StudySearch, precisions: Iterable[str], forecast: Forecast, record: Callable[[TrialRecord], Any]
) -> None:
    """Refuses, before anything starts, what never fits of a grid's `precisions` and of the unfinished trials."""

    def never_fits(config: TrialConfig) -> bool:
        return not forecast.fit(config).fits

    admission = Admission(study, search, forecast, record, never_fits)
    admission.admitted(search.unfinished())
    for precision in precisions:
        admission.ask(precision)  # nothing of these is admitted: it goes through them all


def refused_record(
    study: str, proposal: Proposal, one: Fit, forecast: Forecast, cards: int | None = None
) -> TrialRecord:
    """Returns the record of a trial that was never started, with the components of what it would need."""
    helps = "; or ".join(remedies(proposal.config, forecast.workload, forecast.target_of(cards)))
    reason = f"{refusal_words(one, forecast.workload, forecast.target)}, as predicted"
    return TrialRecord(
        study=study,
        trial_id=proposal.trial_id,
        status="infeasible",
        config=proposal.config,
        reason=f"{reason}; what would make it fit: {helps}" if helps else reason,
        predictions={"peak_memory_bytes": one.peak_memory_bytes},
        infeasible=infeasible_facts(one),
    )


def kin_record(study: str, proposal: Proposal, verdict: RanOut) -> TrialRecord:
    """Returns the record of a trial that was never started, since one of its footprint ran out of memory alone."""
    return TrialRecord(
        study=study,
        trial_id=proposal.trial_id,
        status="infeasible",
        config=proposal.config,
        reason=verdict.reason_of_kin(),
        infeasible=verdict.facts_of_kin(),
    )


def verdict_on(config: TrialConfig, forecast: Forecast) -> RanOut | None:
    """Returns what a trial of the same footprint ran out of memory with, alone and tried twice; None where none did.

    Nor where other processes held the card then: it may fit when they have ended.
    """
    record = forecast.ran_out(config)
    verdict = record and RanOut(record.trial_id, record.infeasible or {})
    return verdict if verdict and verdict.of_the_footprint else None


def note_verdicts(
    records: Iterable[TrialRecord], forecast: Forecast, settings: TrialSettings, fingerprint: str
) -> None:
    """Takes in what ran out of memory before the study was interrupted, so that it is not tried again.

    Only what was found under the same conditions: card, memory limit, number of cards, engine, batch, optimizer, what
    waits in host memory, and data, whose `fingerprint` is that of now.
    """
    card = forecast.target.card
    for record in records:
        name = str(record.device.get("name") or (record.infeasible or {}).get("device") or "")
        there = name.startswith("CPU") if card is None else is_of_kind(name, card)
        one = forecast.fit(record.config)
        cards = 0 if card is None else one.cards or 0
        now = Conditions.of(settings, cards, fingerprint, one.setting.offload)
        if there and now.hold(record.infeasible or {}):
            forecast.note(record)
