"""How target modules are written: sets, names, patterns; as a list, as one text, as a short name.

A set stands in configurations and records as the names that it has in a Llama, whatever the model: `q_v` is q_proj and
v_proj there. `search_spaces.resolution` says what it means in a model.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import lru_cache

from search_spaces.faults import BrokenRule

TARGET_SETS: dict[str, tuple[str, ...]] = {
    "q_v": ("q_proj", "v_proj"),
    "all_linear": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
MODULE_NAMES = TARGET_SETS["all_linear"]  # a Llama's; other models have their own
PATTERN = "re:"
LONGEST_NAME = 200  # characters of a name or a pattern
SHOWN_CHARACTERS = 28  # of a pattern in tables
MOST_REPEATS = 6  # in a pattern
_REPEATS = ("*", "+", "{")
_ESCAPED = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")  # a character with a backslash, and a class of characters
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def is_pattern(entry: str) -> bool:
    """Whether an entry is a pattern for names, and no name."""
    return entry.startswith(PATTERN)


def canonical(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Target modules as configurations hold them: a set alone is its Llama's names; in a list it keeps its own."""
    return TARGET_SETS.get(modules[0], modules) if len(modules) == 1 else modules


def set_of(modules: tuple[str, ...]) -> str | None:
    """The set that these are the names of, in any order."""
    return next((name for name, members in TARGET_SETS.items() if set(members) == set(modules)), None)


def join_modules(modules: tuple[str, ...]) -> str:
    """Target modules as one text, the same for every order: their set's name, or the names joined by `+`.

    With a pattern among them, which may have a `+` of its own, it is the list in JSON.
    """
    if name := set_of(canonical(modules)):
        return name
    names = sorted(modules, key=_place)
    return json.dumps(names) if any(map(is_pattern, names)) else "+".join(names)


def split_modules(text: str) -> tuple[str, ...]:
    """The modules that `join_modules` joined; a pattern may stand alone, too."""
    if text.startswith("["):
        with suppress(ValueError):  # else it is no list, and no name either
            return tuple(json.loads(text))
    return canonical((text,) if is_pattern(text) else tuple(text.split("+")))


def _place(name: str) -> tuple[int, str]:
    return (MODULE_NAMES.index(name), "") if name in MODULE_NAMES else (len(MODULE_NAMES), name)


@lru_cache(maxsize=1024)  # a report asks for it dozens of times a trial
def modules_name(modules: tuple[str, ...]) -> str:
    """The short name that people read: `q_v`, `all_linear`, or the modules joined by `+`, long patterns cut."""
    return set_of(canonical(modules)) or "+".join(_shown(name) for name in modules)


def _shown(entry: str) -> str:
    if not is_pattern(entry):
        return entry.removesuffix("_proj")
    if len(entry) <= SHOWN_CHARACTERS:
        return entry
    end = SHOWN_CHARACTERS // 3  # the end tells patterns of one beginning apart
    return f"{entry[: SHOWN_CHARACTERS - end - 1]}…{entry[-end:]}"


def broken_module_rules(modules: tuple[str, ...]) -> list[BrokenRule]:
    """The rules of form that target modules break; only a model's own names say whether they name anything."""
    broken: list[BrokenRule] = []
    if not modules:
        broken.append(BrokenRule("target_modules", "must name at least one module"))
    if wrong := [str(entry) for entry in modules if not _is_formed(entry)]:
        rule = (
            f"may hold {', '.join(TARGET_SETS)}, names of linear layers such as q_proj or layers.3.mlp.up_proj, and "
            f"patterns such as {PATTERN}layers\\.2[0-9]\\..*, of at most {LONGEST_NAME} characters each and no spaces; "
            f"a pattern has at most {MOST_REPEATS} repeats, none of them of a group that has repeats or alternatives"
        )
        broken.append(BrokenRule("target_modules", rule, f"not {', '.join(one[:LONGEST_NAME] for one in wrong)}"))
    if len(set(modules)) != len(modules):
        broken.append(BrokenRule("target_modules", "must be distinct"))
    return broken


def _is_formed(entry: object) -> bool:
    if not isinstance(entry, str) or len(entry) > LONGEST_NAME or re.search(r"\s", entry):
        return False
    return _compiles(entry.removeprefix(PATTERN)) if is_pattern(entry) else _NAME.fullmatch(entry) is not None


def _compiles(pattern: str) -> bool:
    try:
        return bool(re.compile(pattern) and pattern) and _ends_soon(pattern)
    except (re.error, OverflowError, RecursionError):  # a count too large, groups too deep
        return False


def _ends_soon(pattern: str) -> bool:
    """Whether matching takes no steps without number: `(.+)+x` would take 2**n at a name of n characters.

    There are few repeats, and none of a group that has repeats or alternatives in it.
    """
    bare = _ESCAPED.sub("x", pattern)
    groups, repeats = [False], 0  # of each open group, whether it has repeats or alternatives
    for place, sign in enumerate(bare):
        if sign == "(":
            groups.append(False)
        elif sign == ")":
            manifold = groups.pop()
            if manifold and bare[place + 1 : place + 2] in _REPEATS:
                return False
            groups[-1] |= manifold
        elif sign in (*_REPEATS, "|"):
            groups[-1] = True
        repeats += sign in _REPEATS
    return repeats <= MOST_REPEATS
