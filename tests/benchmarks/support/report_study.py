"""Makes a study of many trials on disk, as a run leaves it, for the time that its report takes."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import yaml

from study.records.layout import PROVENANCE_FILE, RESULTS_FILE, STUDY_FILE
from study.records.record import TrialRecord
from tests.support.study_directory import GIB, PROVENANCE, make_record, study_settings

FRONT_SHARE = 0.375  # of the trials
RANKS = (2, 4, 8, 16, 32, 64, 128)
TARGETS = ("q_v", "all_linear", "q_proj+o_proj")
DOCUMENTS, TARGET_TOKENS = 32, 20  # evaluation rows, and tokens of each that count


def write_report_study(directory: Path, trials: int, seed: int = 0) -> Path:
    """Writes a study of complete trials of distinct configurations, `FRONT_SHARE` of them on its front."""
    chance = random.Random(seed)
    directory.mkdir(parents=True)
    (directory / STUDY_FILE).write_text(yaml.safe_dump(study_settings()), encoding="utf-8")
    (directory / PROVENANCE_FILE).write_text(json.dumps(PROVENANCE), encoding="utf-8")
    with (directory / RESULTS_FILE).open("w", encoding="utf-8") as file:
        for index in range(trials):
            file.write(_record(index, trials, chance).to_json() + "\n")
    return directory


def _record(index: int, trials: int, chance: random.Random) -> TrialRecord:
    precision, rank, modules = chance.choice(("bf16", "nf4")), chance.choice(RANKS), chance.choice(TARGETS)
    record = make_record(index, precision, rank, modules, 10 ** chance.uniform(-5, -2.5))
    perplexity, peak_memory_bytes = _objectives(index, max(1, round(FRONT_SHARE * trials)), chance)
    nats = [chance.uniform(0.5, 1.5) for _ in range(DOCUMENTS)]
    scale = math.log(perplexity) * DOCUMENTS * TARGET_TOKENS / sum(nats)
    measured = {"perplexity": perplexity, "peak_memory_bytes": peak_memory_bytes}
    return replace(
        record,
        measurements={**record.measurements, **measured},
        eval_rows={"nats": [one * scale for one in nats], "tokens": [TARGET_TOKENS] * DOCUMENTS},
    )


def _objectives(index: int, front: int, chance: random.Random) -> tuple[float, int]:
    """Perplexity and peak memory in bytes: the first `front` trials better one by the other, the rest are worse."""
    place = index / front
    if index < front:
        return 20.0 - 10.0 * math.sqrt(place), int((0.6 + 0.6 * place) * GIB)
    return chance.uniform(22.0, 23.0), int(chance.uniform(0.7, 1.2) * GIB)
