"""Target modules mean the layers that a brute-force reading of the rules finds; what is not there is refused."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.layer_ranges import Layers
from search_spaces.resolution import TargetError, by_layer, resolve, short_names, usual_sets
from search_spaces.target_modules import MODULE_NAMES, TARGET_SETS
from trainables.base_model.families import FAMILIES

LLAMA = tuple(
    f"model.layers.{layer}.{block}"
    for layer in range(12)
    for block in (
        *(f"self_attn.{name}" for name in MODULE_NAMES[:4]),
        *(f"mlp.{name}" for name in MODULE_NAMES[4:]),
    )
)
PHI3 = tuple(
    f"model.layers.{layer}.{block}"
    for layer in range(4)
    for block in ("self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj")
)
NEOX = tuple(
    f"gpt_neox.layers.{layer}.{block}"
    for layer in range(3)
    for block in ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
)
PHI3_SETS = FAMILIES["phi3"].targets


def of(layers: range, *blocks: str) -> tuple[str, ...]:
    return tuple(name for name in LLAMA if int(name.split(".")[2]) in layers and name.split(".")[-1] in blocks)


@pytest.mark.parametrize(
    ("asked", "layers", "meant"),
    [
        (["q_proj", "v_proj"], None, of(range(12), "q_proj", "v_proj")),
        (["q_v"], None, of(range(12), "q_proj", "v_proj")),
        (MODULE_NAMES, None, LLAMA),
        (["all_linear"], (10, 11), of(range(10, 12), *MODULE_NAMES)),
        (["down_proj", "q_v"], "last_half", of(range(6, 12), "q_proj", "v_proj", "down_proj")),
        (["k_proj"], "first_half", of(range(6), "k_proj")),
        (["self_attn.o_proj"], (0, 0), of(range(1), "o_proj")),
        (["layers.3.mlp.up_proj"], None, of(range(3, 4), "up_proj")),
        (["model.layers.3.mlp.up_proj", "1.mlp.up_proj"], None, of(range(1, 4, 2), "up_proj")),
        ([r"re:layers\.1\..*"], None, of(range(1, 2), *MODULE_NAMES)),  # and not of layers 10 and 11
        ([r"re:layers\.(1[0-9])\..*"], None, of(range(10, 12), *MODULE_NAMES)),
        ([r"re:.*\.(gate|up)_proj", "v_proj"], (2, 3), of(range(2, 4), "v_proj", "gate_proj", "up_proj")),
    ],
)
def test_entries_mean_what_the_guide_says(asked: list[str], layers: Layers, meant: tuple[str, ...]) -> None:
    assert resolve(asked, layers, LLAMA) == meant
    assert resolve(asked, layers, LLAMA, FAMILIES["llama"].targets) == meant
    assert resolve(asked, layers, (*LLAMA, "lm_head", "model.norm.linear")) == meant  # in no layer: no target


@pytest.mark.parametrize("sets", [None, PHI3_SETS])
@pytest.mark.parametrize("asked", [["q_v"], ["v_proj", "q_proj"]])
def test_a_set_means_a_family_s_own_layers(asked: list[str], sets: Any) -> None:
    assert resolve(asked, None, PHI3, sets) == PHI3[1::4]
    assert resolve(MODULE_NAMES, (1, 2), PHI3, sets) == PHI3[4:12]


def test_a_model_whose_family_nobody_described_has_the_usual_sets() -> None:
    assert resolve(["q_v"], None, NEOX) == NEOX[::4]
    assert resolve(["all_linear"], None, NEOX) == NEOX
    assert resolve(["mlp.dense_h_to_4h"], "last_half", NEOX) == (NEOX[6], NEOX[10])
    with pytest.raises(TargetError, match="must be a set that is known of the base model; name its linear layers, fc1"):
        resolve(["q_v"], None, ["model.layers.0.fc1", "model.layers.0.fc2"])


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_usual_sets_are_those_of_every_described_family(family: Any) -> None:
    assert {name: set(members) for name, members in usual_sets(family.targets["all_linear"]).items()} == {
        name: set(members) for name, members in family.targets.items()
    }


@pytest.mark.parametrize(
    ("asked", "layers", "faults"),
    [
        (["q_prj"], None, [("target_modules", "q_prj", "must be among", "Did you mean `q_proj`?")]),
        (["qv"], None, [("target_modules", "qv", "q_proj, k_proj, v_proj, o_proj, gate_proj", "Did you mean `q_v`?")]),
        (["self_attn"], None, [("target_modules", "self_attn", "must be among", "")]),
        (["attn.q_proj"], None, [("target_modules", "attn.q_proj", "must be among", "")]),
        (["roj"], None, [("target_modules", "roj", "must be among", "")]),
        (["layers.12.mlp.up_proj"], None, [("target_modules", "layers.12.mlp.up_proj", "must be among", "Did you")]),
        (["re:q_proj"], None, [("target_modules", "re:q_proj", "whole names", "Write for example")]),
        ([r"re:layers\.1"], None, [("target_modules", r"re:layers\.1", "layers.0.self_attn.q_proj", "Write")]),
        (["q_v"], (3, 12), [("layers", [3, 12], "12 layers, 0 to 11", "`layers: [6, 11]`")]),
        (["q_v"], (12, 13), [("layers", [12, 13], "12 layers", "")]),
        (["layers.3.mlp.up_proj"], "last_half", [("target_modules", "layers.3.mlp.up_proj", "within layers", "")]),
        (
            ["x", "k_proj", "re:y", "layers.2.mlp.up_proj"],
            (3, 4),
            [("target_modules", "x", "", ""), ("target_modules", "re:y", "", ""),
             ("target_modules", "layers.2.mlp.up_proj", "within layers 3-4; layers.2.mlp.up_proj is outside", "")],
        ),
        (["x", "re:y"], (1, 99), [("target_modules", "x", "", ""), ("target_modules", "re:y", "", ""),
                                  ("layers", [1, 99], "", "")]),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_all_at_once(asked: list[str], layers: Layers, faults: list[Any]) -> None:
    with pytest.raises(TargetError) as caught:
        resolve(asked, layers, LLAMA)
    found = caught.value.faults
    assert [(one.name, one.value) for one in found] == [(name, value) for name, value, _, _ in faults]
    for one, (_, _, rule, remedy) in zip(found, faults, strict=True):
        assert rule in one.rule
        assert remedy in one.remedy
        assert str(one) in str(caught.value)


def test_a_described_family_s_missing_layer_is_named() -> None:
    names = [name for name in PHI3 if "gate_up" not in name]
    with pytest.raises(TargetError) as caught:
        resolve(MODULE_NAMES, None, names, PHI3_SETS)
    (fault,) = caught.value.faults
    assert (fault.value, fault.rule) == (
        "gate_up_proj", "must be among the base model's linear layers, o_proj, qkv_proj, down_proj",
    )  # fmt: skip


def test_half_of_one_layer() -> None:
    one = LLAMA[:7]
    assert resolve(["q_v"], "last_half", one) == (one[0], one[2])
    with pytest.raises(TargetError, match="must be among the base model's 1 layers, 0 to 0"):
        resolve(["q_v"], "first_half", one)


# Against an oracle that spells the rules out

BLOCKS = ("attn.q_proj", "attn.v_proj", "attn.out", "mlp.up", "mlp.down", "mlp.experts.1.up", "fc")


def random_model(chance: random.Random) -> list[str]:
    prefix = chance.choice(["model.layers", "transformer.h", "gpt_neox.layers", "model.language_model.layers"])
    count = chance.randint(1, 13)
    there = {layer: chance.sample(BLOCKS, chance.randint(1, len(BLOCKS))) for layer in range(count)}
    names = [f"{prefix}.{layer}.{block}" for layer in range(count) for block in there[layer]]
    return [*names, "lm_head"]


def random_entry(chance: random.Random, names: list[str]) -> str:
    parts = chance.choice(names[:-1]).split(".")
    place = chance.randrange(len(parts))
    below = parts[next(place for place, part in enumerate(parts) if part.isdecimal()) - 1 :]
    return chance.choice([
        ".".join(parts[place:]),
        parts[-1],
        chance.choice(["nowhere", "attn", "1.fc", "re:up", "re:.*up", "q_v", "all_linear"]),
        "re:" + re.escape(".".join(below)).replace(below[1], chance.choice([below[1], r"\d", r"\d+", "[02468]"]), 1),
    ])  # fmt: skip


def oracle(entry: str, name: str, names: list[str]) -> bool:
    """Whether an entry alone means a name, read letter by letter."""
    shorts = {one.split(".")[-1] for one in names[:-1]}
    digits = [place for place, part in enumerate(name.split(".")) if part.isdecimal()]
    if not digits:
        return False
    if entry == "all_linear":
        return True
    if entry == "q_v":
        return {"q_proj", "v_proj"} <= shorts and name.split(".")[-1] in ("q_proj", "v_proj")
    if entry.startswith("re:"):
        return re.match(f"(?:{entry[3:]})$", ".".join(name.split(".")[digits[0] - 1 :])) is not None
    wanted, parts = entry.split("."), name.split(".")
    return parts[len(parts) - len(wanted) :] == wanted


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_oracle_agrees(seed: int) -> None:
    chance = random.Random(seed)
    names = random_model(chance)
    count = 1 + max(int(next(part for part in name.split(".") if part.isdecimal())) for name in names[:-1])
    asked = list(dict.fromkeys(random_entry(chance, names) for _ in range(chance.randint(1, 4))))
    first = chance.randrange(count)
    layers = chance.choice([None, None, (first, chance.randrange(first, count)), (first, count), "last_half"])
    halves = {"last_half": (count // 2, count - 1), None: (0, count - 1)}
    low, high = layers if isinstance(layers, tuple) else halves[layers]

    def inside(name: str) -> bool:
        return low <= next(int(part) for part in name.split(".") if part.isdecimal()) <= high

    meant = {entry: [name for name in names[:-1] if oracle(entry, name, names) and inside(name)] for entry in asked}
    if high >= count or not all(meant.values()):
        with pytest.raises(TargetError):
            resolve(asked, layers, names)
        return
    expected = tuple(name for name in names if any(name in found for found in meant.values()))
    assert resolve(asked, layers, names) == expected
    found = by_layer(expected, count)
    assert [len(one) for one in found] == [
        sum(int(next(part for part in name.split(".") if part.isdecimal())) == layer for name in expected)
        for layer in range(count)
    ]
    assert set(short_names(expected)) == {short for one in found for short in one}


def test_a_list_of_all_the_names_of_a_set_is_the_set() -> None:
    for name, members in TARGET_SETS.items():
        assert resolve(members, None, LLAMA) == resolve([name], None, LLAMA)
