"""Secrets are masked wherever they stand, and nothing else is: both directions as properties."""

from __future__ import annotations

import ast
import hashlib
import logging
import shlex
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.errors import ConfigFault, StoreError, UserError, shown
from study.secrets import HIDDEN, mask_logs, masked, masked_command, masked_place, masked_value, masked_word
from tests.support.border.secret_places import (
    AFTER_NAMES,
    ALPHABET,
    AROUND,
    HARMLESS,
    HARMLESS_IN_TEXT,
    IN_QUERIES,
    IN_URLS,
    LETTERS_AND_SIGNS,
    NAMES,
    TOKENS,
    URL_SIGNS,
)
from tests.support.places import ROOT

ENDS = st.sampled_from(ALPHABET)


def secrets(alphabet: str, least: int = 20) -> st.SearchStrategy[str]:
    """Long enough to stand nowhere by chance, and with a letter at both ends, as plain YAML needs it."""
    inner = st.text(alphabet, min_size=least, max_size=40)
    # `1A` and `b2`: digits and letters of both cases are in every one, as in a drawn secret of this length.
    return st.tuples(ENDS, inner, ENDS).map(lambda parts: f"{parts[0]}1A{parts[1]}b2{parts[2]}")


def holds(text: str, secret: str) -> None:
    """Neither the whole text nor its command line shows the secret, and masking twice is masking once."""
    found = masked(text, {})
    assert secret not in found
    assert HIDDEN in found
    assert masked(found, {}) == found
    assert secret not in masked_word(text, {})
    assert secret not in masked_command(shlex.join(["study", "run", "--set", text]), {})
    assert secret not in str(ConfigFault("--set", "", text, "must be KEY.PATH=VALUE", "Write it."))
    assert secret not in str(ConfigFault("a.yaml", "base_model.path", text, f"must not be {text}", f"Not {text}."))
    assert secret not in str(StoreError("A store must be readable", text, "Look."))
    assert secret not in str(UserError(text))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.sampled_from(AFTER_NAMES), secrets(LETTERS_AND_SIGNS))
def test_what_follows_a_secret_name_is_masked(name: str, place: object, secret: str) -> None:
    holds(place(name, secret), secret)  # type: ignore[operator]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(IN_URLS), secrets(URL_SIGNS))
def test_credentials_in_urls_are_masked_and_the_rest_of_the_url_is_not(place: object, secret: str) -> None:
    text = place(secret)  # type: ignore[operator]
    holds(text, secret)
    assert secret not in masked_place(text, {})
    assert "://" in masked(text, {})


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(IN_QUERIES), secrets(LETTERS_AND_SIGNS))
def test_signatures_and_tokens_in_queries_are_masked(place: object, secret: str) -> None:
    text = place(secret)  # type: ignore[operator]
    holds(text, secret)
    holds(text, quote(secret, safe=""))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TOKENS), st.sampled_from(AROUND), secrets(ALPHABET, 24))
def test_tokens_are_masked_by_their_form_wherever_they_stand(token: object, around: object, secret: str) -> None:
    text = around(token(secret))  # type: ignore[operator]
    for form in (secret, secret.upper()) if "AKIA" in text else (secret,):
        holds(text, form)
    assert secret not in masked_place(text, {})


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(NAMES), secrets(LETTERS_AND_SIGNS + "'\"\\ ,{}[]:#\n"))
def test_values_are_masked_by_their_keys_whatever_they_hold(name: str, secret: str) -> None:
    hidden = [masked_value(name, secret), masked_value("hub", {name: {"a": [1, secret]}}), masked_value(name, [secret])]
    assert all(secret not in repr(one) and secret not in shown(one) for one in hidden)
    assert secret not in str(ConfigFault("a.yaml", name, secret, "is no key of a study file", "Leave it out."))
    assert masked_value("hub", {name: 12345678, "rank": 8, "on": True}) == {name: HIDDEN, "rank": 8, "on": True}
    command = masked_command(shlex.join(["study", "run", "--set", f"{name}={secret}", f"--{name}", secret]), {})
    assert secret not in command
    assert secret not in shlex.split(command)[-1]


@settings(max_examples=100, deadline=None)
@given(secrets(LETTERS_AND_SIGNS + "'\" ", 8))
def test_values_of_secret_variables_are_masked_wherever_they_stand(secret: str) -> None:
    environment = {"MY_API_KEY": secret, "HOME": "/home/someone", "SHORT_TOKEN": "a"}
    for text in (f"x{secret}y", repr(f"x {secret}"), f"study run /home/someone/a.yaml --out x-{secret}-y"):
        assert secret not in masked(text, environment)
    assert masked("a b /home/someone", environment) == "a b /home/someone"


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=4, max_size=40))
def test_hashes_are_never_masked(content: bytes) -> None:
    for digest in (hashlib.sha256(content), hashlib.sha1(content), hashlib.md5(content)):
        text = f"fingerprint: {digest.hexdigest()}, {digest.hexdigest()[:12]}"
        assert masked(text, {}) == text
        assert masked_word(text, {}) == text


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert masked(text, {}) == text
    assert masked_place(text, {}) == text
    assert masked_word(text, {}) == text
    assert masked_command(shlex.join(["study", text]), {}) == shlex.join(["study", text])


@pytest.mark.parametrize("text", HARMLESS_IN_TEXT)
def test_examples_and_lines_of_code_stay_in_texts(text: str) -> None:
    assert masked(text, {}) == text


def our_texts() -> Iterator[tuple[str, str]]:
    for file in (path for ending in ("md", "yaml", "html", "css") for path in ROOT.glob(f"**/*.{ending}")):
        if not any(part.startswith(".") or part == "node_modules" for part in file.relative_to(ROOT).parts):
            yield str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
    for file in (
        path for room in ("study", "trainables", "analysis", "search_spaces") for path in ROOT.glob(f"{room}/**/*.py")
    ):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield str(file.relative_to(ROOT)), node.value


def test_no_text_of_our_own_is_masked() -> None:
    """Every page, every shipped study, and every string in the code: messages, remedies, docstrings."""
    texts = list(our_texts())
    assert len(texts) > 3000
    assert [(where, text) for where, text in texts if masked(text, {}) != text] == []


@pytest.mark.parametrize(
    "piece",
    ["a", "a=", "token=", "token: ", 'token="', "s3://a:b@", "a://", "{a: ", "sk-", "eyJ", "eyJabcdef.", "'", "{,",
     "-----BEGIN PRIVATE KEY-----", "password:\n", " ", "{token: a", "bearer ", "&a=", "?a"],
)  # fmt: skip
def test_a_long_text_takes_time_in_proportion(piece: str) -> None:
    """400,000 characters under two seconds; what grows with the square would take minutes."""
    start = time.process_time()
    masked(piece * (400_000 // len(piece)), {})
    assert time.process_time() - start < 2


def test_logs_and_their_tracebacks_are_masked(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogRecordFactory()
    try:
        mask_logs()
        mask_logs()  # once is enough
        try:
            raise ValueError("no: https://u:sEcret1234567@host")
        except ValueError:
            logging.getLogger("anywhere").exception("could not read %s", "s3://KEY:sEcret1234567@bucket")
    finally:
        logging.setLogRecordFactory(before)
    assert "s3://***@bucket" in caplog.text
    assert "Traceback" in caplog.text
    assert "sEcret1234567" not in caplog.text


HUB_TOKEN = "hf_" + "AbCdEf" * 5


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("study run a.yaml --set training.max_steps=20", "study run a.yaml --set training.max_steps=20"),
        ("study run --set dataset.max_tokens=128", "study run --set dataset.max_tokens=128"),
        ("study run --set generation.max_new_tokens=24", "study run --set generation.max_new_tokens=24"),
        ("study run --set hub.token=abc", "study run --set 'hub.token=***'"),
        ("study run --set=hub.api_key=abc=def", "study run '--set=hub.api_key=***'"),
        ("study run --set 'hub.Password=a b c'", "study run --set 'hub.Password=***'"),
        ("study run --token abc a.yaml", "study run --token '***' a.yaml"),
        ("study run --secret=abc", "study run '--secret=***'"),
        ("study run --set 'hub={token: abc, seed: 1}'", "study run --set 'hub={token: ***, seed: 1}'"),
        (
            f"study run --set base_model.path=https://u:{HUB_TOKEN}@hub",
            "study run --set 'base_model.path=https://***@hub'",
        ),
        ("study run 'two words'", "study run 'two words'"),
        ("study run 'no end", "study run ''\"'\"'no' end"),
    ],
)
def test_commands_as_provenance_has_them(command: str, shown: str) -> None:
    assert masked_command(command, {}) == shown


def test_a_command_hides_the_values_of_secret_variables() -> None:
    environment = {"MY_API_KEY": "s3cretvalue", "HOME": "/home/someone", "SHORT_TOKEN": "a"}
    command = "study run /home/someone/a.yaml --out x-s3cretvalue-y"
    assert masked_command(command, environment) == "study run /home/someone/a.yaml --out 'x-***-y'"
