"""Values of a study file, its spaces, and overrides that no study can have: one message per fault, with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.border.hostile import Hostile, table
from tests.support.made_up_studies import SPACE, write_study_file


def override(*overrides: str) -> Callable[[Path, Path], list[str]]:
    """Returns a maker of `plan` over a good study with these overrides."""

    def make(folder: Path, model: Path) -> list[str]:
        pairs = [word for one in overrides for word in ("--set", one)]
        return ["plan", str(write_study_file(folder, model)), *pairs]

    return make


def row(text: str, *words: str) -> Hostile:
    return Hostile(text[:60], override(text), ("--set: ", *words))


def space_file(text: str) -> Callable[[Path, Path], list[str]]:
    def make(folder: Path, model: Path) -> list[str]:
        (folder / "space.yaml").write_text(text, encoding="utf-8")
        return ["plan", str(write_study_file(folder, model, space="space.yaml"))]

    return make


WRONG = ("null", "true", "''", "-1", "1.5", ".nan", ".inf", "1e400", "9" * 90, "[]", "{}", "word", "2026-01-01", "'\t'")
WHOLE = "must be a whole number from"
RULES = {  # of a key: words of its rule, and the values above that it takes
    "name": ("must be a plain file name", ("word", "2026-01-01")),
    "base_model": ("must hold keys and values", ("{}",)),
    "base_model.path": ("must be text of 1 to 1,000 characters", ("word", "2026-01-01")),
    "base_model.double_quantization": ("must be true or false", ("true",)),
    "dataset.max_tokens": (WHOLE, ()),
    "dataset.train_examples": (WHOLE, ("null",)),
    "dataset.seed": (WHOLE, ()),
    "training.micro_batch_size": (WHOLE, ()),
    "training.epochs": ("must be a", ("1.5",)),
    "training.warmup_ratio": ("must be a number from 0", ()),
    "training.schedule": ("must be one of", ()),
    "training.gradient_checkpointing": ("must be true or false", ("true",)),
    "search.algorithm": ("must be one of grid", ()),
    "search.seed": (WHOLE, ()),
    "seeds": ("must be a list of 1 to", ()),
    "early_stopping.algorithm": ("must be one of", ()),
    "objectives": ("must be a list of", ()),
    "hardware.gpu": ("must be one of auto, cpu", ()),
    "hardware.memory_limit": ("must be a byte quantity with its unit", ("null",)),
    "hardware.price_per_hour": ("must be a number", ("null", "1.5")),
    "adapters": ("must be one of front", ()),
    "generation.max_new_tokens": (WHOLE, ()),
    "loggers": ("must be a list of", ("[]",)),
    "space.rank": ("Write for example `rank: {choice: [8, 64]}`", ()),
    "space.learning_rate": ("Write for example `learning_rate: 2.0e-4`", ()),
    "space.precision": ("precision: {choice: [fp16, nf4]}", ()),
}  # fmt: skip


PAIRS = [(key, value, rule) for key, (rule, taken) in RULES.items() for value in WRONG if value not in taken]


@pytest.mark.parametrize(("key", "value", "rule"), PAIRS, ids=[f"{key}={value[:12]}" for key, value, _ in PAIRS])
def test_a_wrong_value_is_named_with_its_rule(key: str, value: str, rule: str, check: Callable[[Hostile], str]) -> None:
    check(Hostile(key, override(f"{key}={value}"), (f"--set: {key}", rule)))


@table(
    row("", "must be KEY.PATH=VALUE. Write for example --set search.seed=1"),
    row("word", "must be KEY.PATH=VALUE"),
    row("=1", "must be KEY.PATH=VALUE"),
    row("a..b=1", "must be KEY.PATH=VALUE"),
    row(".=1", "must be KEY.PATH=VALUE"),
    row("a." * 100_000 + "a=1", "a key of at most 20 parts"),
    row("a" * 10**6 + "=1", "a key of at most 20 parts and 10,000 characters"),
    row("nam=x", "is no key of a study file", "Did you mean"),
    row("training.epoch=1", "is no key of training", "epochs"),
    row("name=[", "must be YAML", "brackets"),
    row("name=!!python/name:os.system x", "is not allowed", "without a tag"),
    row("name=&a [*a]", "stands for what holds it"),
    row("name=a\0b", "no control characters"),
    row("name=\udcff", "must be UTF-8 text"),
    row("name=../../etc/passwd", "must be a plain file name", "without `..`"),
    row("name=-rf", "must be a plain file name"),
    row("name=.hidden", "must be a plain file name"),
    row("name=a/b", "must be a plain file name"),
    row("name=" + "x" * 101, "up to 100 of the letters"),
    row("name=" + "[" * 100_000, "nested at most 50 deep"),
    row("objectives.9=1", "must have a number under 2 after `objectives`"),
    row("objectives.-1=1", "must have a number under 2"),
    row("objectives.٣=1", "must have a number under 2"),
    row("objectives.0.reference.x=1", "must end at `objectives.0.reference`"),
    row("objectives.0.metric=beauty", "must be one of"),
    row("objectives.0.direction=sideways", "must be one of"),
    row("objectives.1.reference=1e400 GiB", "must be"),
    row("hardware.memory_limit=14.56", "a byte quantity with its unit"),
    row("hardware.memory_limit=-1 GiB", "a byte quantity with its unit"),
    row("hardware.memory_limit=9e99 TiB", "a byte quantity with its unit"),
    row("storage=ftp://x", "must be a folder's path, or s3://"),
    row("storage=" + "x" * 2000, "must be a folder's path"),
    row("seeds=[0, 0]", "must differ from those before it"),
    row("seeds=[-1]", WHOLE),
    row("base_model.path=" + "x/" * 700, "must be text of 1 to 1,000 characters"),
    row("loggers=[carrier-pigeon]", "must be one of"),
    row("space=nowhere.yaml", "must be a file that is there", "or write the space inline"),
    row("space=/dev/zero", "must be a file that is there"),
    row("space.rank={choice: []}", "space.rank"),
    row("space.rank={choice: [8, 8]}", "space.rank"),
    row("space.rank={choice: [8, -1]}", "space.rank"),
    row("space.rank={choice: [8, .nan]}", "space.rank"),
    row("space.rank={choose: [8]}", "space.rank"),
    row("space.rank={low: 64, high: 8}", "space.rank"),
    row("space.learning_rate={low: 0, high: 1, log: true}", "space.learning_rate"),
    row("space.learning_rate={low: 1e-4, high: .inf}", "space.learning_rate"),
    row("space.precision=fp8", "space.precision"),
    row("space.target_modules=every thing", "space.target_modules"),
    row("space.target_modules=['re:(.+)+x']", "space.target_modules"),
    row("space.target_modules=['[']", "space.target_modules"),
    row("space.layers=half", "space.layers", "must be all, first_half, last_half"),
    row("space.layers=[4, 2]", "space.layers"),
    row("space.layers={choice: [16, 31]}", "space.layers.choice.0", "space.layers.choice.1"),
    row("space.lora_dropout=1.5", "space.lora_dropout"),
    row("space.lora_alpha={rank_times: -2}", "space.lora_alpha"),
    row("space.colour=blue", "is no parameter of a trial"),
)
def test_overrides(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    Hostile(
        "names that the model lacks", override("space.target_modules=[everything, 're:x']", "space.layers=[3, 9]"),
        ('space.target_modules = "everything": must be among the base model\'s linear layers, q_proj',
         'space.target_modules = "re:x"', "space.layers = [3, 9]: must be among the base model's 2 layers"),
    ),
    Hostile("an empty space file", space_file(""), ("space.yaml", "must hold the parameters")),
    Hostile("a list as space file", space_file("[8]"), ("space.yaml", "must hold the parameters")),
    Hostile("a space file with a tag", space_file("rank: !!int 8"), ("space.yaml", "line 1", "is not allowed")),
    Hostile("a space file with a key twice", space_file("rank: 8\nrank: 8"), ("line 2", "must stand only once")),
    Hostile("a bomb as space file", space_file("a: " + "[" * 9999), ("space.yaml", "nested at most 50 deep")),
    Hostile(
        "two faults in a space file", space_file(f"rank: 0\nrnk: 3\nprecision: {SPACE['precision']}"),
        ("space.yaml: space.rank = 0", "space.yaml: space.rnk = 3", "learning_rate is missing"),
    ),
    Hostile(
        "two faults of two overrides", override("seeds=[]", "name=a/b"),
        ("--set: seeds = []", '--set: name = "a/b"'),
    ),
)  # fmt: skip
def test_spaces_and_all_faults_at_once(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
