"""Recognizes secrets by their names (`db.pwd`, `HF_TOKEN`) and by their forms (`hf_…`, `sk-…`, JWTs)."""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from itertools import pairwise

# The parts of a name end at dots, dashes, underscores and digits, and before a capital.
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ANYWHERE = re.compile(r"password|passwd|passphrase|passcode|credential|secret(?!ar)|authorization|^pwd|pwd$")
_AT_THE_END = re.compile(
    r"(^|.)auth|cookie|bearer|jwt|sas|(api|access|secret|private|account|auth)key"
    r"|(auth|access|hub|api|refresh|session|bearer|id|bot|hf|gh|csrf|user|my)?token"
)
_BEFORE_KEYS = re.compile("api|access|secret|private|account|signing|encryption|storage|shared|ssh|auth|master|client")
# A tokenizer's special tokens, and passes of a network, are no secrets.
_BEFORE_TOKENS = re.compile(
    "eos|bos|pad|unk|sep|cls|mask|special|added|additional|image|audio|video|start|end|stop|begin|first|last|next|per|"
    "new|max|target|each|one|single|system|user|assistant|tool|turn|byte|boi|eoi|fill|a|the|this|that|other|any"
)
_BEFORE_PASSES = re.compile("forward|backward|first|second|third|last|each|one|single|full|by|per|training")
# Where a name ends so, the value says where a secret lies, or of what kind it is.
_HARMLESS_ENDS = re.compile(
    "path|file|folder|dir|directory|name|ref|mode|type|kind|count|length|size|sock|socket|yaml|yml|json|jsonl|toml|txt|"
    "py|md|csv|ini|cfg|required|missing|enabled|expires|expiry"
)
_WORKING_DIRECTORY = ("PWD", "OLDPWD")
_IN_QUERIES = re.compile("sig|signature|key|code|pass|pw|hmac|policy|ticket")

_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:hf|api_org)_(?P<hub>[A-Za-z0-9]{8,})"
    r"|sk-(?P<sk>[A-Za-z0-9_-]{12,})"
    r"|(?P<scheme>(?i:bearer|basic))[ \t]+(?P<credentials>[A-Za-z0-9._~+/=-]{8,})"
    r"|gh[opsur]_[A-Za-z0-9]{12,}|github_pat_[A-Za-z0-9_]{12,}|glpat-[A-Za-z0-9_-]{12,}"
    r"|(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{16,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/[A-Za-z0-9/]{10,}"
    r"|eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{8,}|npm_[A-Za-z0-9]{20,}|pypi-[A-Za-z0-9_-]{20,}"
    r"|nvapi-[A-Za-z0-9_-]{16,}|gsk_[A-Za-z0-9]{16,}|r8_[A-Za-z0-9]{16,}|dapi[0-9a-f]{32}|dop_v1_[0-9a-f]{20,}"
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|AGE-SECRET-KEY-[A-Z0-9]{20,}"
    r")"
)
_RUN = re.compile(r"[A-Za-z0-9]{12,}")
_HUB_WORDS = ("quantization", "argparser", "transformers", "accelerate")  # of packages and variables
_SHORTEST_WORDLIKE = 12  # characters of small letters alone that are no word


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a key, option or variable of this name holds a secret, as `db.pwd` and `apiKey` do."""
    parts = [part.lower() for part in _PARTS.findall(name)]
    if not parts or _HARMLESS_ENDS.fullmatch(parts[-1]) or name in _WORKING_DIRECTORY:
        return False
    last, before = parts[-1], parts[-2] if len(parts) > 1 else ""
    if last == "token" and _BEFORE_TOKENS.fullmatch(before):
        return False
    if last == "signature":  # alone, a function's or a model's
        return not {"amz", "goog", "sas"}.isdisjoint(parts)
    if last == "pass":
        return bool(before) and not _BEFORE_PASSES.fullmatch(before)
    return (
        any(_ANYWHERE.search(part) for part in parts)
        or _AT_THE_END.fullmatch(last) is not None
        or any(part == "key" and bool(_BEFORE_KEYS.fullmatch(earlier)) for earlier, part in pairwise(parts))
    )


def is_secret_parameter(name: str) -> bool:
    """Whether a URL's parameter of this name holds a secret, as signatures and keys do too."""
    parts = [part.lower() for part in _PARTS.findall(name)]
    return bool(parts) and (bool(_IN_QUERIES.fullmatch(parts[-1])) or is_secret_name(name))


def without_tokens(text: str, hidden: str) -> str:
    """Returns the text with `hidden` in place of everything that has the form of a token."""
    return _TOKENS.sub(lambda found: _hidden(found, hidden), text)


def _hidden(found: re.Match[str], hidden: str) -> str:
    if found["hub"]:
        word = found["hub"].isalpha() and found["hub"].islower()
        secret = not word or (len(found["hub"]) >= _SHORTEST_WORDLIKE and found["hub"] not in _HUB_WORDS)
    elif found["sk"]:
        secret = any(len(run) >= 16 or _mixed(run) for run in _RUN.findall(found["sk"]))
    elif found["credentials"]:
        basic = found["scheme"].lower() == "basic"
        secret = _is_basic(found["credentials"]) if basic else _is_bearer(found["credentials"])
        return found[0].removesuffix(found["credentials"]) + hidden if secret else found[0]
    else:
        secret = True
    return hidden if secret else found[0]


def _mixed(run: str) -> bool:
    """Whether letters of both cases and digits stand together, as in no word."""
    return run.lower() != run != run.upper() and any(one.isdigit() for one in run)


def _is_bearer(text: str) -> bool:
    plain = text.rstrip(".-=")
    words = plain.replace("-", "").replace(".", "")
    return len(plain) >= 16 or not words.isalpha() or words[1:] != words[1:].lower()


def _is_basic(text: str) -> bool:
    """Whether it begins as USER:PASSWORD in base64 does (RFC 7617)."""
    letters = re.match(r"[A-Za-z0-9+/]*", text)
    whole = letters[0][: len(letters[0]) // 4 * 4] if letters else ""
    return b":" in base64.b64decode(whole)
