"""Target modules have one text and one short name in any order, and read back as they were."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.target_modules import (
    LONGEST_NAME,
    MODULE_NAMES,
    SHOWN_CHARACTERS,
    TARGET_SETS,
    broken_module_rules,
    join_modules,
    modules_name,
    split_modules,
)

ENTRIES = (*MODULE_NAMES, "q_v", "qkv_proj", "layers.3.mlp.up_proj", r"re:layers\.(2|3)+\..*", 're:["+]', "re:[,]")


@given(st.lists(st.sampled_from(ENTRIES), min_size=1, unique=True), st.randoms())
def test_modules_have_one_text_in_any_order(modules: list[str], chance: st.randoms) -> None:  # type: ignore[valid-type]
    text = join_modules(tuple(modules))
    shuffled = modules.copy()
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert join_modules(tuple(shuffled)) == text
    assert join_modules(split_modules(text)) == text
    alone = TARGET_SETS.get(modules[0], modules) if len(modules) == 1 else modules
    assert set(split_modules(text)) == set(alone)


@pytest.mark.parametrize(
    ("modules", "name"),
    [
        (("v_proj", "q_proj"), "q_v"),
        (("q_v",), "q_v"),
        (("q_v", "o_proj"), "q_v+o"),
        (("qkv_proj",), "qkv"),
        (("layers.3.mlp.up_proj",), "layers.3.mlp.up"),
        (("re:.*_proj",), "re:.*_proj"),
    ],
)
def test_short_names(modules: tuple[str, ...], name: str) -> None:
    assert modules_name(modules) == name


def test_long_patterns_are_cut_in_the_middle() -> None:
    first, second = (modules_name((r"re:layers\.(2[0-9]|3[01])\.self_attn\." + end,)) for end in ("q_proj", "v_proj"))
    assert (first, second) == (r"re:layers\.(2[0-9]…n\.q_proj", r"re:layers\.(2[0-9]…n\.v_proj")
    assert len(first) <= SHOWN_CHARACTERS


@pytest.mark.parametrize(
    "text", ["[", "[3]", "[1", '["a b"]', "re:", "re:(", "", "+", "q_proj+", "a" * 201, "re:a{2,1}"]
)
def test_what_no_list_can_hold_is_refused(text: str) -> None:
    assert broken_module_rules(split_modules(text))


def test_the_longest_pattern_holds() -> None:
    assert not broken_module_rules(("re:" + "a" * (LONGEST_NAME - 3),))


@pytest.mark.parametrize("pattern", [r"(.+)+x", "(.*.*)*!", "(a|b)+", "((a+)b)*", "(a{1,3}){2}", ".*" * 7])
def test_a_pattern_that_may_take_for_ever_is_refused(pattern: str) -> None:
    assert broken_module_rules((f"re:{pattern}",))


@pytest.mark.parametrize(
    "pattern",
    [
        r"layers\.(2[0-9])\..*",
        r".*\.(gate|up)_proj",
        "(gate|up)?_x",
        r"[(+*]+\(+\++",
        "[]+*]+(a)+",
        r"(\(a+\))b",
        ".*" * 6,
    ],
)
def test_a_pattern_that_ends_soon_holds(pattern: str) -> None:
    """Within 0.1 s on a name as models have them, so that a model's thousand names take two minutes at worst."""
    assert not broken_module_rules((f"re:{pattern}",))
    began = time.perf_counter()
    re.fullmatch(f"{pattern}[!]", "layers.20.self_attn.q_proj")
    assert time.perf_counter() - began < 0.1
