"""What a row means: PubMedQA, Stack Overflow (CoNaLa), or JSON Lines of one's own, as prompt and completion. (no torch)

PubMedQA: Jin et al. 2019, arXiv 1909.06146. CoNaLa: Yin et al. 2018, arXiv 1805.08949.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.dataset.files import (
    LOCAL_REMEDY,
    DatasetError,
    hub_rows,
    is_unicode,
    raise_faults,
    read_json,
    read_rows,
    shown,
    text_faults,
)
from trainables.dataset.splits import Example, Splits, draw_splits, first, hold_out, sample, shuffled
from trainables.settings import DatasetSettings

ANSWERS = ("yes", "no", "maybe")
SAMPLE_FILE = Path(__file__).resolve().parents[1] / "sample_data" / "medical_qa.json"
OFFICIAL_TEST_FILE = "test_ground_truth.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FILE_ENDINGS = (".json", ".jsonl")

Pool = tuple[list[Example], frozenset[str]]  # all examples, and the groups of an official test split


def load_examples(settings: DatasetSettings) -> Splits:
    """The training, evaluation and test examples that the settings ask for, before tokenization.

    Raises DatasetError where the data is missing, malformed, or less than asked for.
    """
    if settings.train_file is not None:
        splits = _own_splits(settings, settings.train_file)
    elif settings.name in NAMED:
        pool, official_test = NAMED[settings.name](settings.source)
        splits = draw_splits(pool, settings, official_test)
    else:
        rule = f"dataset.name must be {' or '.join(NAMED)} where there is no dataset.train_file"
        remedy = "Choose one of them, or give your own rows as dataset.train_file and dataset.eval_file."
        raise DatasetError(f"{rule}; it is {settings.name!r}. {remedy}")
    for name, examples in zip(("training", "evaluation"), splits, strict=False):
        if not examples:
            remedy = "Give more data, or ask for fewer rows elsewhere."
            raise DatasetError(f"The {name} split must hold at least one row; none is left for it. {remedy}")
    return splits


# PubMedQA


def pubmedqa_pool(source: str | None) -> Pool:
    """PubMedQA's rows and official test ids: from "sample", a file like `ori_pqal.json`, or the hub (no test ids)."""
    source = source or "qiaojin/PubMedQA"
    path = SAMPLE_FILE if source == "sample" else _local_file(source)
    if path is None:
        records = [_from_hub(row) for rows in hub_rows(source, "pqa_labeled").values() for row in rows]
        return _checked(source, records, _pubmedqa_faults, _pubmedqa_example), frozenset()
    records = read_json(path, "dataset.source")
    if not isinstance(records, dict):
        remedy = "Give a file like PubMedQA's ori_pqal.json, or your own rows as dataset.train_file."
        raise DatasetError(f"dataset.source must hold one JSON object, id to question; {path} does not. {remedy}")
    examples = _checked(str(path), records.items(), _pubmedqa_faults, _pubmedqa_example)
    return examples, _official_test(path) & {example.group for example in examples}


def _official_test(path: Path) -> frozenset[str]:
    ids = path.with_name(OFFICIAL_TEST_FILE)
    if not ids.is_file():
        return frozenset()
    decisions = read_json(ids, "The official test split")
    if not isinstance(decisions, dict):
        remedy = "Take PubMedQA's own file, or move it away to have a test split drawn."
        raise DatasetError(f"{ids} must hold one JSON object, id to decision; it holds {shown(decisions)}. {remedy}")
    return frozenset(decisions)


def _from_hub(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    record = {
        "QUESTION": row.get("question"),
        "CONTEXTS": (row.get("context") or {}).get("contexts"),
        "LONG_ANSWER": row.get("long_answer"),
        "final_decision": row.get("final_decision"),
    }
    return str(row.get("pubid")), record


def _pubmedqa_faults(record: Any) -> list[str]:
    faults = text_faults(record, ("QUESTION", "LONG_ANSWER", "final_decision"))
    if not isinstance(record, Mapping):
        return faults
    contexts = record.get("CONTEXTS")
    if not isinstance(contexts, list) or not all(isinstance(text, str) and is_unicode(text) for text in contexts):
        faults.append(f"`CONTEXTS` must be a list of texts; it is {shown(contexts)}. Write one text a section.")
    decision = record.get("final_decision")
    if isinstance(decision, str) and decision not in ANSWERS:
        faults.append(f"`final_decision` must be one of {', '.join(ANSWERS)}; it is {shown(decision)}. Choose one.")
    return faults


def _pubmedqa_example(row_id: str, record: Mapping[str, Any]) -> Example:
    """The completion starts with the decision, so that its first tokens alone answer the question."""
    decision = record["final_decision"]
    return Example(
        prompt_head="Context:",
        context=" " + "\n".join(record["CONTEXTS"]),
        prompt_tail=f"\nQuestion: {record['QUESTION']}\nAnswer:",
        completion=f" {decision}. {record['LONG_ANSWER']}",
        label=decision,
        group=row_id,
        row_id=row_id,
    )


# Stack Overflow


def stackoverflow_pool(source: str | None) -> Pool:
    """CoNaLa's rows and the questions of the hub's test split: from a JSON file (no test split), or the hub."""
    source = source or "neulab/conala"
    if source == "sample":
        remedy = f"Name CoNaLa's JSON file, or its hub id. {LOCAL_REMEDY}."
        raise DatasetError(f"dataset.source may be `sample` for pubmedqa only; dataset.name is stackoverflow. {remedy}")
    path = _local_file(source)
    if path is not None:
        return _checked(str(path), _numbered(read_rows(path, "dataset.source")), _conala_faults, _conala_example), (
            frozenset()
        )
    splits = hub_rows(source, "curated")
    rows = _numbered((f"{split} {n}", row) for split, rows in splits.items() for n, row in enumerate(rows, start=1))
    test = frozenset(str(row["question_id"]) for row in splits.get("test", []) if "question_id" in row)
    return _checked(source, rows, _conala_faults, _conala_example), test


def _numbered(rows: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The rows under the names `question_id-n`, n counting a question's rows from 1; malformed ones keep theirs."""
    seen: Counter[str] = Counter()
    named = []
    for where, row in rows:
        if isinstance(row, Mapping) and not _conala_faults(row):
            question = str(row["question_id"])
            seen[question] += 1
            where = f"{question}-{seen[question]}"
        named.append((where, row))
    return named


def _conala_faults(row: Any) -> list[str]:
    rewritten = isinstance(row, Mapping) and row.get("rewritten_intent") is not None
    faults = text_faults(row, ("intent", "snippet", *(("rewritten_intent",) if rewritten else ())))
    if not isinstance(row, Mapping):
        return faults
    question = row.get("question_id")
    if isinstance(question, bool) or not isinstance(question, int | str):
        faults.append(f"`question_id` must be a number or a text; it is {shown(question)}. Add it.")
    return faults


def _conala_example(row_id: str, row: Mapping[str, Any]) -> Example:
    intent = (row.get("rewritten_intent") or row["intent"]).strip()
    return Example(
        prompt_head=f"Question: {intent}\nCode:\n",
        context="",
        prompt_tail="",
        completion=row["snippet"],
        label=None,
        group=str(row["question_id"]),
        row_id=row_id,
    )


# One's own files


def _own_splits(settings: DatasetSettings, train_file: str) -> Splits:
    if settings.test_file is None and settings.test_examples:
        rule = f"dataset.test_examples needs a dataset.test_file; it is {settings.test_examples} without one"
        raise DatasetError(f"{rule}. Give the file, or leave test_examples out.")
    train = _own_examples(train_file, "train_file")
    if settings.eval_file is None:
        train, evaluation = hold_out(train, settings)
    else:
        train = first(shuffled(train, settings.seed), settings.train_examples, "train_examples")
        rows = _own_examples(settings.eval_file, "eval_file")
        evaluation = sample(rows, settings.eval_examples, settings.seed, "eval_examples")
    if settings.test_file is None:
        return train, evaluation, []
    rows = _own_examples(settings.test_file, "test_file")
    return train, evaluation, sample(rows, settings.test_examples, settings.seed, "test_examples")


def _own_examples(file: str, key: str) -> list[Example]:
    def example(where: str, row: Mapping[str, Any]) -> Example:
        # The whole prompt is context: a long one loses its start, and keeps the end, nearest to the completion.
        row_id = f"{Path(file).name}:{where.removeprefix('row ')}"
        return Example("", row["prompt"], "", row["completion"], label=None, group=row["prompt"], row_id=row_id)

    rows = read_rows(Path(file), f"dataset.{key}")
    return _checked(file, rows, lambda row: text_faults(row, ("prompt", "completion")), example)


# Shared


def _checked(
    source: str,
    rows: Iterable[tuple[str, Any]],
    faults_of: Callable[[Any], Sequence[str]],
    example: Callable[[str, Any], Example],
) -> list[Example]:
    """The rows as examples; raises DatasetError with every fault, or where there is no row."""
    rows = list(rows)
    if not rows:
        raise DatasetError(
            f"A dataset must hold at least one row; {source} holds none. Add rows, or name another file."
        )
    places = ((where if where.startswith("row") else f"row {where}", row) for where, row in rows)
    raise_faults([f"{source}, {where}: {fault}" for where, row in places for fault in faults_of(row)])
    return [example(where, row) for where, row in rows]


def _local_file(source: str) -> Path | None:
    """The source as a local path; None where it is a hub id. What is neither is taken for a path that is missing."""
    path = Path(source)
    if path.exists() or path.suffix in FILE_ENDINGS or not HUB_ID.fullmatch(source):
        return path
    return None


NAMED: dict[str, Callable[[str | None], Pool]] = {"pubmedqa": pubmedqa_pool, "stackoverflow": stackoverflow_pool}
