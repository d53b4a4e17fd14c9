"""Masks credentials in whatever is written, shown or sent: tokens, passwords in URLs, values of secret names."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from study.secret_forms import is_secret_name, is_secret_parameter, without_tokens

HIDDEN = "***"
SHORTEST_SECRET = 8  # characters; shorter values of variables would hide half a text
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----"
    r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----|\Z)",
    re.DOTALL,
)
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{1,30}):(?P<slashes>/{1,3})(?P<rest>[^\s\"<>]*)")
_STORES = re.compile("s3|s3a|s3n|gs|gcs|abfs|abfss|az|wasb|wasbs|oss")  # whose URLs have no ports
_WITH_USERS = re.compile(r"(git\+)?ssh|git|sftp|ftp|rsync|postgres(ql)?|mysql|redis|mongodb")  # without a password too
_PORT = re.compile(r"[0-9]{1,5}(?=[/?#]|\Z)")
_PARAMETER = re.compile(r"(?<=[?&#;])(?P<name>[A-Za-z][\w.%-]{0,80})=(?P<value>[^\s&#;\"'<>]+)")

_NAME = r"[\"']?(?P<name>[A-Za-z_][\w.-]{0,100}+)[\"']?"
_QUOTED = r"\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|[\"'][^\n]*"
_SCHEMED = r"(?i:bearer|basic|token|digest)[ \t]+[^\s,;]+"
# What leads to a value, with its name, and the value's own form there.
_NAMED = (
    (re.compile(r"(?<!\S)--?(?P<name>[A-Za-z][\w.-]{0,100}+)[ =]"), re.compile(rf"{_QUOTED}|\S+")),
    (re.compile(rf"(?m)^[ \t]*(?:- )?{_NAME}[ \t]*:[ \t]+"), re.compile(r"\S.*")),
    (
        re.compile(rf"[{{,\[][ \t]*(?:\?[ \t]*)?{_NAME}[ \t]*:[ \t]*"),
        re.compile(rf"{_QUOTED}|[^\s\"'{{\[].*?(?=,[ \t]|[}}\]]+(?:[\s,'\"]|\Z)|\n|\Z)"),
    ),
    (re.compile(rf"(?<![\w.-]){_NAME}[ ]?=[ ]?"), re.compile(rf"{_QUOTED}|{_SCHEMED}|[^\s=]\S*")),
    (re.compile(rf"(?<![\w/.-]){_NAME}[ \t]?:[ \t]+"), re.compile(rf"{_QUOTED}|{_SCHEMED}|\S+")),
)
_CLOSING = "'\"`,.;:)}]"
_LAST_NAME = re.compile(r"([A-Za-z_][\w.-]{0,100}+)[\"'\s]*\Z")
# What stands where a value would: in examples, and where one is hidden already.
_PLACEHOLDER = re.compile(r"…|\.\.\.|\*\*\*|\$\{?[A-Z_]+\}?|<[A-Za-z_ -]+>|null|none|true|false|~", re.IGNORECASE)


def masked(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Returns a text with `***` in place of what may be secret; other text, paths and hashes stay as they are.

    Secret are: what has a token's form, private keys, credentials and signatures in URLs, values after secret names, as
    in `NAME: VALUE`, `NAME=VALUE` and `--NAME VALUE`, and the values of variables of the environment (default: this
    process') with such names.
    """
    text = masked_place(text, environment)
    for before, value in _NAMED:
        text = _without_named(before, value, text)
    return text


def masked_place(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Returns a path, a URL, a key, or text that is data, without the secrets that `masked` knows by form.

    What follows a name stays: a file may have the name of a secret.
    """
    text = _without_values_of(os.environ if environment is None else environment, text)
    text = _URL.sub(_url, _KEY_BLOCK.sub(HIDDEN, text))
    return without_tokens(_PARAMETER.sub(_parameter, text), HIDDEN)


def masked_word(word: str, environment: Mapping[str, str] | None = None) -> str:
    """Returns one word of a command line, or one value: what follows `NAME=` of a secret name is hidden to its end."""
    parts = word.split("=")
    for index, before in enumerate(parts[:-1], 1):
        name = _LAST_NAME.search(before)
        if name and is_secret_name(name[1]) and not _PLACEHOLDER.fullmatch("=".join(parts[index:])):
            return "=".join([*(masked(part, environment) for part in parts[:index]), HIDDEN])
    key, equals, value = word.partition("=")
    if equals and _LAST_NAME.fullmatch(key.lstrip("-")):  # so that a value's first line counts as one
        return f"{masked(key, environment)}={masked(value, environment)}"
    return masked(word, environment)


def masked_command(command: str, environment: Mapping[str, str] | None = None) -> str:
    """Returns a shell's command line with `***` in place of what may be secret, also of `--NAME VALUE`."""
    try:
        words = shlex.split(command)
    except ValueError:  # quotes without their ends: no command line of ours
        words = command.split()
    before = ["", *words]
    return shlex.join(
        HIDDEN
        if option.startswith("-") and "=" not in option and is_secret_name(option)
        else masked_word(word, environment)
        for option, word in zip(before, words, strict=False)
    )


def masked_value(name: str, value: Any) -> Any:
    """Returns a value of that name, or of no name, as it may be shown: everything in it of a secret name is hidden."""
    if isinstance(value, Mapping):
        inner = {str(key): name if is_secret_name(name) else str(key) for key in value}
        return {masked(str(key)): masked_value(inner[str(key)], one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [masked_value(name, one) for one in value]
    if is_secret_name(name) and isinstance(value, str | int | float) and not isinstance(value, bool):
        return HIDDEN
    return masked_word(value) if isinstance(value, str) else value


def mask_logs() -> None:
    """Masks the messages and tracebacks of all loggers of this process from now on."""
    make = logging.getLogRecordFactory()
    if getattr(make, "masks", False):
        return

    def record(*arguments: Any, **options: Any) -> logging.LogRecord:
        made = make(*arguments, **options)
        made.msg, made.args = masked(made.getMessage()), None
        if made.exc_info:
            made.exc_text = masked(logging.Formatter().formatException(made.exc_info))
        return made

    record.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)


def _without_values_of(environment: Mapping[str, str], text: str) -> str:
    for name, value in environment.items():
        if len(value) >= SHORTEST_SECRET and is_secret_name(name):
            for form in (value, json.dumps(value)[1:-1], quote(value, safe="")):
                text = text.replace(form, HIDDEN)
    return text


def _url(found: re.Match[str]) -> str:
    rest = found["rest"]
    end = _end_of_credentials(found["scheme"].lower(), rest)
    return f"{found['scheme']}:{found['slashes']}{HIDDEN}{rest[end:]}" if end else found[0]


def _end_of_credentials(scheme: str, rest: str) -> int:
    """Where the `@` after a URL's user and password is; 0 where it has none that is secret.

    Passwords hold slashes and at signs, though they should not: those of S3 do. So where there is a password, the last
    `@` counts.
    """
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, colon, _ = host.partition(":")
    if colon and "@" not in user and not user.startswith("["):
        port = not _STORES.fullmatch(scheme) and _PORT.match(rest, len(user) + 1) and "@" not in host
        return 0 if port else max(0, rest.rfind("@"))
    if "@" not in host or _WITH_USERS.fullmatch(scheme) or host.startswith("git@"):
        return 0
    return host.rfind("@")


def _stands_for_another(value: str, name: str) -> bool:
    """Whether it is a placeholder, or a variable of the same name in a line of code: `token=self.token`."""
    last = re.split(r"[._-]", name)[-1]
    return bool(_PLACEHOLDER.fullmatch(value)) or re.fullmatch(rf"([A-Za-z_]\w*\.)*{last}", value) is not None


def _parameter(found: re.Match[str]) -> str:
    return f"{found['name']}={HIDDEN}" if is_secret_parameter(found["name"]) else found[0]


def _without_named(before: re.Pattern[str], value: re.Pattern[str], text: str) -> str:
    """The text with the values hidden whose names are secret; a value of another name may hold names itself."""
    pieces, at = [], 0
    for found in before.finditer(text):
        if found.start() < at or not is_secret_name(found["name"]):
            continue
        there = value.match(text, found.end())
        if there and not _stands_for_another(there[0].strip(_CLOSING), found["name"]):
            pieces += [text[at : found.end()], _hidden(there[0])]
            at = there.end()
    return "".join([*pieces, text[at:]])


def _hidden(value: str) -> str:
    """What is shown of a value: its quotes, or the signs that close the sentence."""
    if value[0] in "\"'" and len(value) > 1 and value[-1] == value[0]:
        return f"{value[0]}{HIDDEN}{value[0]}"
    return HIDDEN + value[len(value.rstrip(_CLOSING)) :]
