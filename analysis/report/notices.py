"""What a reader must know before comparing numbers."""

from __future__ import annotations

from analysis.figures.parts import measures_process
from analysis.load import Study
from study.records.reading import set_aside_words

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
            if len({record.comparable[kind] for record in complete if kind in record.comparable}) > 1
        ]
    )
