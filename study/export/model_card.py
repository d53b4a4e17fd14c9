"""Writes the model card of an exported adapter: what it is, its training, its measures, how to use it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

import yaml

from analysis.load import Study
from analysis.wording import configuration_name, format_value
from study.records.record import TrialRecord
from trainables.guarded_files import read_json

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as --max-lora-rank
SHOWN_CHARACTERS = 1200  # of a sample
MEASURES = (
    ("perplexity", "Perplexity, evaluation split", "base_perplexity"),
    ("accuracy", "Answer accuracy, evaluation split", "base_accuracy"),
    ("test_perplexity", "Perplexity, test split", None),
    ("test_accuracy", "Answer accuracy, test split", None),
    ("peak_memory_bytes", "Peak memory while training alone", None),
    ("train_tokens_per_second", "Training speed, tokens/s", None),
    ("generated_tokens_per_second", "Generation speed, tokens/s", "base_generated_tokens_per_second"),
    ("seconds_per_epoch", "Time per epoch", None),
    ("energy_joules", "Energy", None),
    ("trainable_parameters", "Trainable parameters", None),
)


def model_card(study: Study, record: TrialRecord, licence: str | None, merged: str | None, kind: str) -> str:
    """Returns the card as Markdown with the hub's front matter.

    `licence` is the base model's, where it is known; `merged` the type of merged weights, None for an adapter; `kind`
    is the base's: hub, folder or gguf. Paths of the user's machine are cut to their names.
    """
    sections = [
        _front_matter(study, record, licence, merged, kind),
        _introduction(study, record, merged),
        "## Use\n\n" + _use(record, merged, kind),
        "## Configuration and training\n\n" + _table(("", ""), _settings(study, record)),
        "## Data\n\n" + _data(study, record),
        "## Measures\n\n" + _measures(record),
        _samples(record),
        "## Licence\n\n" + _licence(record, licence, kind),
        "## Where it comes from\n\n" + _origin(study, record),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def base_name(record: TrialRecord) -> str:
    """Returns the base model's name, without the folders of the machine that it lay on."""
    path = str(record.base_model.get("path") or "unknown")
    return path if HUB_ID.fullmatch(path) else PurePath(path.split(":", 1)[-1]).name


def _front_matter(study: Study, record: TrialRecord, licence: str | None, merged: str | None, kind: str) -> str:
    values: dict[str, Any] = {"library_name": "transformers" if merged else "peft", "pipeline_tag": "text-generation"}
    if kind == "hub":
        values["base_model"] = str(record.base_model.get("path"))
    if licence and not licence.startswith("LICENSE"):
        values["license"] = licence
    source = str((study.settings.get("dataset") or {}).get("source") or "")
    if HUB_ID.fullmatch(source):
        values["datasets"] = [source]
    values["tags"] = ["lora", *(["qlora"] if record.config.precision == "nf4" else []), "lora-frontier"]
    return f"---\n{yaml.safe_dump(values, sort_keys=False).strip()}\n---"


def _introduction(study: Study, record: TrialRecord, merged: str | None) -> str:
    what = f"The base model with a LoRA adapter merged in ({merged})" if merged else "A LoRA adapter"
    text = f"# {study.name} {record.trial_id}\n\n{what} over {base_name(record)}: {configuration_name(record)}."
    if record.config.precision != "nf4" or not merged:
        return text
    return (
        f"{text} It was trained over the base in NF4 and is merged into the 16-bit weights, which are not quite what "
        "it was trained with: the measures below are of the adapter over NF4."
    )


def _use(record: TrialRecord, merged: str | None, kind: str) -> str:
    if merged:
        code = 'model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="auto")'
        return _code("python", f"from transformers import AutoModelForCausalLM\n\n{code}")
    path = str(record.base_model.get("path"))
    source = f'"{path}"' if kind == "hub" else f'"FOLDER_OF_{base_name(record)}"'
    if kind == "gguf":
        source = f'"FOLDER", gguf_file="{base_name(record)}"'
    elif record.base_model.get("revision"):
        source += f', revision="{record.base_model["revision"]}"'
    python = (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'base = AutoModelForCausalLM.from_pretrained({source}, dtype="auto")\n'
        'model = PeftModel.from_pretrained(base, "THIS_FOLDER")'
    )
    rank = next((rank for rank in VLLM_RANKS if rank >= record.config.rank), None)
    if rank is None or kind == "gguf":
        return _code("python", python)
    served = f"vllm serve {base_name(record)} --enable-lora --max-lora-rank {rank} --lora-modules tuned=THIS_FOLDER"
    return f"{_code('python', python)}\n\nOr served by vLLM:\n\n{_code('sh', served)}"


def _settings(study: Study, record: TrialRecord) -> list[Sequence[str]]:
    config, training = record.config, study.settings.get("training") or {}
    rows = [
        ("precision of the base", config.precision),
        ("rank", str(config.rank)),
        ("lora_alpha", f"{config.lora_alpha:g}"),
        ("lora_dropout", f"{config.lora_dropout:g}"),
        ("target_modules", ", ".join(_updated(study, record))),
        *([("layers", config.layer_range)] if config.layers is not None else []),
        ("learning_rate", f"{config.learning_rate:g}"),
        ("seed", str(config.seed)),
    ]
    if config.precision == "nf4":
        double = (study.settings.get("base_model") or {}).get("double_quantization", True)
        rows.insert(1, ("double quantization", "yes" if double else "no"))
    steps, tokens = (record.measurements.get(name) for name in ("train_steps", "train_tokens"))
    rows += [("optimizer steps", "–" if steps is None else f"{steps:,}")]
    rows += [("tokens trained on", "–" if tokens is None else f"{tokens:,}")]
    return [*rows, *((name, str(value)) for name, value in training.items() if value is not None)]


def _updated(study: Study, record: TrialRecord) -> Sequence[str]:
    """The linear layers' short names as the adapter's own file has them; else what was asked for.

    A set stands in a record as a Llama's names, which the model may not have.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):  # FileRefusedError is a ValueError
        names = read_json(study.directory / str(record.adapter) / "adapter_config.json")["target_modules"]
        if not any("." in name for name in names):
            return [str(name) for name in names]
    return record.config.target_modules


def _data(study: Study, record: TrialRecord) -> str:
    dataset = study.settings.get("dataset") or {}
    rows = [(name, _data_value(name, str(value))) for name, value in dataset.items() if value is not None]
    statistics = record.dataset.get("statistics") or {}
    for split, counts in statistics.items():
        if counts and counts.get("rows"):
            text = f"{counts['rows']:,} rows, {counts['tokens']:,} tokens, {counts['target_tokens']:,} of them targets"
            rows.append((f"{split} split", text))
    rows.append(("fingerprint", str(record.dataset.get("fingerprint") or "–")))
    return _table(("", ""), rows)


def _data_value(name: str, value: str) -> str:
    """A setting of the data; of a file only its name."""
    is_file = name.endswith("_file") or (name == "source" and not HUB_ID.fullmatch(value))
    return PurePath(value).name if is_file else value


def _measures(record: TrialRecord) -> str:
    device = record.device.get("name") or "an unknown device"
    source = record.device.get("memory_source") or "unknown"
    found = record.measurements
    rows = [
        (label, format_value(metric, found.get(metric)), format_value(metric, found.get(base)) if base else "–")
        for metric, label, base in MEASURES
        if found.get(metric) is not None
    ]
    how = f"On {device}, computed in {record.device.get('compute_dtype') or 'an unknown type'}; memory: {source}"
    how += f", with {record.offload.words} in host memory." if record.offload.words else "."
    return f"{how}\n\n{_table(('', 'this trial', 'base model'), rows)}"


def _samples(record: TrialRecord) -> str:
    parts = [
        f"**{_quoted(sample.get('prompt'))}**\n\nBase model: {_quoted(sample.get('base'))}\n\n"
        f"Tuned: {_quoted(sample.get('tuned'))}"
        for sample in record.samples
    ]
    return "## Samples\n\nGreedy decoding.\n\n" + "\n\n".join(parts) if parts else ""


def _licence(record: TrialRecord, licence: str | None, kind: str) -> str:
    base = base_name(record)
    if licence:
        known = f"The base model, {base}, is under: {licence}."
    else:
        page = f" See https://huggingface.co/{base}." if kind == "hub" else ""
        known = (
            f"The licence of the base model, {base}, is not known to this card: find it out before passing on.{page}"
        )
    return f"{known} It binds what is made from it, this too; so may the licence of the data."


def _origin(study: Study, record: TrialRecord) -> str:
    git, versions = study.provenance.get("git") or {}, study.provenance.get("versions") or {}
    rows = [
        ("study", study.name),
        ("trial", record.trial_id),
        ("base model sha256", str(record.base_model.get("sha256"))),
    ]
    rows += [("LoRA Frontier commit", str(git["commit"]))] if git.get("commit") else []
    rows += [
        (name, str(versions[name])) for name in ("torch", "transformers", "peft", "bitsandbytes") if name in versions
    ]
    return _table(("", ""), rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _quoted(text: Any) -> str:
    """A model's text on one line, as code: no Markdown or HTML in it takes effect."""
    plain = " ".join(str(text or "").split()).replace("`", "'")
    return f"`{plain[:SHOWN_CHARACTERS]}{' …' if len(plain) > SHOWN_CHARACTERS else ''}`" if plain else "(nothing)"


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
