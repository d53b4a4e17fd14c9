"""Tokens that do not belong to the model or the data are refused; what is no fault is said and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from study.errors import DONE
from tests.border.hostile import Hostile, table
from tests.support.border.tokenizer_changes import (
    added,
    content,
    differing_rows,
    named,
    plan,
    posted,
    tokenizer,
    unknown,
    values_in,
    vocabulary,
    without,
    write,
)


def known(*words: str, make: Callable[[Path, Path], list[str]], name: str, unsaid: tuple[str, ...] = ()) -> Hostile:
    """A row of what is no fault, and of what the plan says of it."""
    return Hostile(name, make, words, unsaid, exit_code=DONE, most_lines=60)


BEYOND = ("base_model.path", "ids of tokens must be under 97", "resize_token_embeddings")
NOWHERE = content("generation_config.json", '{"eos_token_id": 5000}')
USER = (97, "<|user|>")
USERS = differing_rows("<|user|>Is {} even?")
PAD = plan(added((97, "<pad>")), named(pad_token="<pad>"))
NO_EOS = plan(
    named(bos_token=None, eos_token=None),
    values_in("config.json", bos_token_id=None, eos_token_id=None),
    without("generation_config.json"),
)
FROM_CONFIG = plan(without("tokenizer_config.json"), values_in("config.json", bos_token_id=0, eos_token_id=1))
TEXT = {"name": "mine", "train_file": "rows.jsonl", "train_examples": 32, "max_tokens": 64, "special_tokens": "text"}
MARKUP = {**TEXT, "special_tokens": "markup"}
PROMPT = {"prompts": ["a <|user|>"]}
TRUNCATION = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 500}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
    "pad_token": "x",
}  # fmt: skip
FORMS = ("dataset.special_tokens", "auto, text, markup")
LOOPS, RAISES = "{% for x in range(10**9) %}x{% endfor %}", "{{ raise_exception('no') }}"
SOME = [{"prompt": f"<s>Is {n} even?" if n else "Is 0 even?", "completion": " yes"} for n in range(40)]


def some_rendered(model: Path) -> None:
    write(model.parent / "rows.jsonl", "\n".join(map(json.dumps, SOME)).encode())


@table(
    Hostile("token beyond the embedding", plan(added(USER), USERS), (*BEYOND, "<|user|>", "id 97", "rows.jsonl:")),
    Hostile("huge id", plan(vocabulary(**{"2": 2**32 - 1})), (*BEYOND, "id 4,294,967,295")),
    Hostile("a letter beyond", plan(vocabulary(y=97)), (*BEYOND, "'y', id 97")),
    Hostile("EOS beyond", plan(named(eos_token="<|new|>")), (*BEYOND, "<|new|>")),
    Hostile(
        "a prompt beyond",
        plan(added(USER), generation=PROMPT, dataset=MARKUP),
        (*BEYOND, "generation.prompts.0"),
    ),
    Hostile(
        "EOS of nowhere",
        plan(without("tokenizer_config.json"), values_in("config.json", eos_token_id=None), NOWHERE),
        ("generation_config.json: eos_token_id", "an id of the tokenizer's vocabulary", "5000", "null"),
    ),
    Hostile(
        "most rows are rendered", plan(some_rendered), ("dataset.special_tokens", "35 of 36", "rows.jsonl:1", "markup")
    ),
    Hostile(
        "asked for in other words",
        plan(dataset={**TEXT, "special_tokens": "yes"}),
        FORMS,
    ),
    Hostile(
        "asked for by a flag",
        plan(dataset={**TEXT, "special_tokens": True}),
        FORMS,
    ),
    Hostile(
        "a language it does not know",
        plan(named(unk_token="<unk>"), unknown, differing_rows("漢字カナ{}漢字カナ")),
        ("must know the rows", "are unknown"),
    ),
)
def test_what_does_not_belong_to_the_model_or_the_data_is_refused(
    hostile: Hostile, check: Callable[[Hostile], str]
) -> None:
    check(hostile)


@table(
    known("begin with <s> and end with </s>", make=plan(), name="good", unsaid=("special tokens’ texts",)),
    known("end with </s>", make=PAD, name="an extra pad token that nothing uses"),
    known("tuned models will not stop", make=NO_EOS, name="no EOS anywhere"),
    known("begin with <s> and end with </s>", make=FROM_CONFIG, name="ids of the configuration"),
    known("end with </s>", make=plan(tokenizer(post_processor=posted(1000))), name="a post-processor that adds tokens"),
    known(
        "median",
        make=plan(named(chat_template=LOOPS)),
        name="a template that loops",
    ),
    known("median", make=plan(named(chat_template=RAISES)), name="a template that raises"),
    known("median", make=plan(content("chat_template.jinja", "{% endfor")), name="a template that is none"),
    known("median", make=plan(vocabulary(**{"~": 5, "|": 5})), name="two texts of one id"),
    known(
        "median",
        make=plan(tokenizer(truncation=TRUNCATION)),
        name="that truncates",
        unsaid=("longest 4",),
    ),
    known(
        "median",
        make=plan(
            tokenizer(
                padding={
                    "strategy": {"Fixed": 500},
                    "direction": "Right",
                    "pad_to_multiple_of": None,
                    "pad_id": 0,
                    "pad_type_id": 0,
                    "pad_token": "x",
                }
            )
        ),
        name="that pads",
        unsaid=("500",),
    ),
    known(
        "36 rows hold special tokens’ texts",
        "read as text",
        make=plan(differing_rows("a <s>{}</s> b")),
        name="struck out in HTML",
    ),
    known("read as those tokens", make=plan(differing_rows("<s>Is {} even?")), name="rendered by a template"),
    known("read as text", make=plan(differing_rows("<s>Is {} even?"), dataset=TEXT), name="rendered, and text"),
    known(
        "does not know, such as",
        make=plan(named(unk_token="<unk>"), unknown, differing_rows("Is {} é?")),
        name="one letter unknown",
    ),
    known("median", make=plan(named(auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})), name="code of its own"),
    known("median", make=plan(named(tokenizer_file="/dev/zero", vocab_file="/dev/zero")), name="files elsewhere"),
)
def test_what_is_no_fault_is_said_and_changes_nothing(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
