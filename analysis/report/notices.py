"""What a reader must know before comparing numbers."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.figures.parts import measures_process
from analysis.host_memory import cost_notice, costs_compare_beside_it
from analysis.load import Study
from study.records.reading import set_aside_words
from study.records.record import TrialRecord

PROCESS_MEMORY = (
    "Measured on a CPU: peak memory is the process’ resident peak, with Python and all libraries in it. "
    "It orders these configurations, but says nothing of a GPU’s memory."
)
NO_EOS = (
    "Neither the tokenizer nor the base model’s configuration names a token for a text’s end (EOS): tuned models have "
    "not learned to stop."
)
CONSEQUENCES = {
    "quality": "base model, data or masking differ: their perplexity does not compare",
    "cost": "device, batch or engine differ: their memory and speed do not compare",
}


def notices(study: Study) -> list[str]:
    """One sentence for each thing that is left out, does not compare, or is not what its name says."""
    left_out = set_aside_words(study.set_aside)
    complete = [record for record in study.records if record.status == "complete"]
    endless = any("eos" in record.dataset and record.dataset["eos"] is None for record in complete)
    return (
        ([left_out] if left_out else [])
        + ([PROCESS_MEMORY] if measures_process(study.records) else [])
        + ([NO_EOS] if endless else [])
        + [
            f"Not all complete trials compare in {kind}; {consequence}."
            for kind, consequence in CONSEQUENCES.items()
            if not _compares(complete, kind)
        ]
        + [sentence for sentence in (cost_notice(complete),) if sentence]
    )


def _compares(complete: Sequence[TrialRecord], kind: str) -> bool:
    """Whether all that is known of the trials compares; in cost, but for what waited in host memory: see its notice."""
    if kind == "cost":
        return costs_compare_beside_it(complete)
    return len({record.comparable[kind] for record in complete if kind in record.comparable}) < 2
