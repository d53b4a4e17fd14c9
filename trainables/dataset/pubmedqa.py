"""Reads PubMedQA: questions on abstracts, with the answer yes, no or maybe.

Jin et al. 2019, "PubMedQA: A Dataset for Biomedical Research Question Answering", arXiv 1909.06146.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.dataset.files import DatasetError, RowFault, read_json
from trainables.dataset.hub import hub_rows, local_file
from trainables.dataset.reading.row_faults import checked, is_unicode, text_faults, type_name
from trainables.dataset.splits import Example, Pool
from trainables.shown_values import shown

ANSWERS = ("yes", "no", "maybe")
SAMPLE_FILE = Path(__file__).resolve().parents[1] / "sample_data" / "medical_qa.json"
OFFICIAL_TEST_FILE = "test_ground_truth.json"
REMEDY = (
    "Give a file like PubMedQA's ori_pqal.json, the hub id qiaojin/PubMedQA, or your own rows of prompt and completion "
    "as dataset.train_file."
)


def pubmedqa_pool(source: str | None) -> Pool:
    """Reads PubMedQA's examples, and the ids of its official test split where they are known.

    `source` is "sample" (the rows shipped with the project), a file like `ori_pqal.json`, or a hub id, which brings no
    test ids; None: PubMedQA's own hub id.
    """
    source = source or "qiaojin/PubMedQA"
    path = SAMPLE_FILE if source == "sample" else local_file(source)
    if path is None:
        records = [_from_hub(row) for rows in hub_rows(source, "pqa_labeled").values() for row in rows]
        return checked(f"dataset.source, {source}", records, _pubmedqa_faults, _pubmedqa_example), frozenset()
    records = read_json(path, "dataset.source", REMEDY)
    if not isinstance(records, dict):
        found = f"{path} holds {type_name(records)}"
        raise DatasetError(f"dataset.source must hold one JSON object, id to question; {found}. {REMEDY}")
    examples = checked(f"dataset.source, {path}", records.items(), _pubmedqa_faults, _pubmedqa_example)
    return examples, _official_test(path) & {example.group for example in examples}


def _official_test(path: Path) -> frozenset[str]:
    ids = path.with_name(OFFICIAL_TEST_FILE)
    if not ids.exists():
        return frozenset()
    decisions = read_json(ids, "The official test split", "Take PubMedQA's own file, or move it away.")
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


def _pubmedqa_faults(record: Any) -> list[RowFault]:
    faults = text_faults(record, ("QUESTION", "LONG_ANSWER", "final_decision"))
    if not isinstance(record, Mapping):
        return faults
    contexts = record.get("CONTEXTS")
    if not isinstance(contexts, list) or not all(isinstance(text, str) and is_unicode(text) for text in contexts):
        found = "it is not there" if "CONTEXTS" not in record else "it is not"
        faults.append(
            RowFault("`CONTEXTS` must be a list of texts", found, "Write one text a section.", shown(contexts))
        )
    decision = record.get("final_decision")
    if isinstance(decision, str) and decision not in ANSWERS:
        rule = f"`final_decision` must be one of {', '.join(ANSWERS)}"
        faults.append(RowFault(rule, "it is another text", "Choose one.", shown(decision)))
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
