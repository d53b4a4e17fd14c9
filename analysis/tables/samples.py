"""The table of samples: what the base model and tuned ones said to each prompt."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.load import Study
from analysis.pareto import front
from analysis.tables.table import Table
from analysis.wording import configuration_name


def samples_table(study: Study, trials: Sequence[str] = ()) -> Table | None:
    """What the base model and tuned ones say, a row each; of the front, or of the given trials side by side."""
    members = front(study.records, study.objectives)
    chosen = [record for record in study.records if record.trial_id in trials] if trials else members
    rows: list[tuple[str, ...]] = []
    for prompt in dict.fromkeys(str(sample["prompt"]) for record in chosen for sample in record.samples):
        seen: set[str] = set()
        for record in chosen:
            for sample in (each for each in record.samples if str(each["prompt"]) == prompt):
                if sample.get("reference") and not seen:
                    rows.append((prompt, "reference answer", str(sample["reference"])))
                if record.config.precision not in seen:
                    rows.append((prompt, f"base model, {record.config.precision}", str(sample.get("base") or "")))
                    seen.add(record.config.precision)
                rows.append(
                    (prompt, f"{record.trial_id}: {configuration_name(record)}", str(sample.get("tuned") or ""))
                )
    if not rows:
        return None
    caption = "Greedy decoding; what is cut off reached the study’s max_new_tokens."
    return Table("samples", "Samples", caption, ("Prompt", "Who", "Answer"), tuple(rows), words=2)
