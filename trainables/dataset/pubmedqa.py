"""Reads PubMedQA: questions on abstracts, with the answer yes, no or maybe.

Jin et al. 2019, "PubMedQA: A Dataset for Biomedical Research Question Answering", arXiv 1909.06146.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.dataset.files import DatasetError, checked, is_unicode, read_json, shown, text_faults
from trainables.dataset.hub import hub_rows, local_file
from trainables.dataset.splits import Example, Pool

ANSWERS = ("yes", "no", "maybe")
SAMPLE_FILE = Path(__file__).resolve().parents[1] / "sample_data" / "medical_qa.json"
OFFICIAL_TEST_FILE = "test_ground_truth.json"


def pubmedqa_pool(source: str | None) -> Pool:
    """Reads PubMedQA's examples, and the ids of its official test split where they are known.

    `source` is "sample" (the rows shipped with the project), a file like `ori_pqal.json`, or a hub id, which brings no
    test ids; None: PubMedQA's own hub id.
    """
    source = source or "qiaojin/PubMedQA"
    path = SAMPLE_FILE if source == "sample" else local_file(source)
    if path is None:
        records = [_from_hub(row) for rows in hub_rows(source, "pqa_labeled").values() for row in rows]
        return checked(source, records, _pubmedqa_faults, _pubmedqa_example), frozenset()
    records = read_json(path, "dataset.source")
    if not isinstance(records, dict):
        remedy = "Give a file like PubMedQA's ori_pqal.json, or your own rows as dataset.train_file."
        raise DatasetError(f"dataset.source must hold one JSON object, id to question; {path} does not. {remedy}")
    examples = checked(str(path), records.items(), _pubmedqa_faults, _pubmedqa_example)
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
