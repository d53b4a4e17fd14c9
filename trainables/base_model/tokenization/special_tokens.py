"""Reads a tokenizer's special and added tokens from its files, and adds them as transformers' classes do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Tokenizer

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
Token = str | AddedToken


@dataclass(frozen=True)
class SpecialTokens:
    """Tokens by name (`bos_token`, …), further special tokens, and all added tokens by id."""

    named: Mapping[str, Token | None] = field(default_factory=dict)
    extra: tuple[Token, ...] = ()
    added: Mapping[int, AddedToken] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """Returns a named token as text; None where there is none."""
        token = self.named.get(name)
        return None if token is None else str(token)

    def all_texts(self) -> list[str]:
        """Lists the named and further special tokens, each once."""
        tokens = (*(token for token in self.named.values() if token is not None), *self.extra)
        return list(dict.fromkeys(map(str, tokens)))


def read_special_tokens(
    config: Mapping[str, Any],
    legacy_map: Mapping[str, Any],
    legacy_added: Mapping[str, Any],
    own_added: Mapping[int, AddedToken],
    defaults: Mapping[str, Token | None],
) -> SpecialTokens:
    """Returns the tokens that `tokenizer_config.json` names, or the older files where it lists no added tokens.

    `legacy_map` and `legacy_added` are `special_tokens_map.json` and `added_tokens.json`, `own_added` the added tokens
    of `tokenizer.json`, `defaults` those of transformers' class. Raises ValueError or TypeError for what is no token.
    """
    values = dict(config)
    if "additional_special_tokens" in values and not values.get("extra_special_tokens"):
        values["extra_special_tokens"] = values.pop("additional_special_tokens")
    specific = {key: values.pop(key) for key in [*values] if _is_own_name(key) and isinstance(values[key], str)}
    if isinstance(values.get("extra_special_tokens"), dict):
        specific |= values.pop("extra_special_tokens")
    if "added_tokens_decoder" in values:
        added = {int(number): _added(token) for number, token in values["added_tokens_decoder"].items()}
    else:
        values |= _mapped(legacy_map, values)
        if isinstance(values.get("extra_special_tokens"), dict):
            specific |= values.pop("extra_special_tokens")
        added = {**_legacy_added(legacy_added, values), **own_added}
    values = {key: _typed(value) for key, value in values.items()}
    if "additional_special_tokens" in values and "extra_special_tokens" not in values:
        values["extra_special_tokens"] = values["additional_special_tokens"]
    by_text = {str(token): token for token in added.values()}
    named = {name: _named(name, values.get(name, defaults.get(name)), by_text) for name in NAMES}
    own = {key: value for key, value in values.items() if _is_own_name(key) and isinstance(value, AddedToken)}
    named |= {name: _named(name, token, {}) for name, token in {**own, **specific}.items()}
    return SpecialTokens(named, _extra(values.get("extra_special_tokens")), added)


def add_special_tokens(backend: Tokenizer, tokens: SpecialTokens) -> None:
    """Adds to `backend` what it lacks of the tokens, in transformers' order: by id, by name, and the further ones."""
    to_add: list[Token] = [token for _, token in sorted(tokens.added.items())]
    known = {token.content for token in backend.get_added_tokens_decoder().values()} | {str(one) for one in to_add}
    for token in (*tokens.named.values(), *tokens.extra):
        if token is not None and str(token) not in known:
            known.add(str(token))
            to_add.append(token)
    names = {str(token) for token in tokens.named.values() if token}
    ready = [_special(token, names) for token in to_add]
    if ready:
        backend.add_tokens(ready)


def _special(token: Token, names: Iterable[str]) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True)
    if not token.special and str(token) in names:
        token.special = True
    return token


def _is_own_name(key: str) -> bool:
    return key.endswith("_token") and key not in NAMES


def _added(token: Any) -> AddedToken:
    if not isinstance(token, dict):
        raise TypeError(f"added_tokens_decoder must hold mappings; one is a {type(token).__name__}")
    return AddedToken(**token)


def _mapped(legacy: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens of `special_tokens_map.json`, which come before those of the configuration."""
    found: dict[str, Any] = {}
    for key, value in legacy.items():
        if key == "extra_special_tokens" and isinstance(value, list):
            before = list(values.get(key) or [])
            new = [AddedToken(**{**one, "special": True}) if isinstance(one, dict) else one for one in value]
            found[key] = [*before, *(one for one in new if one not in before)]
        elif isinstance(value, dict) and key != "extra_special_tokens":
            found[key] = AddedToken(**{**value, "special": True})
        else:
            found[key] = value
    return found


def _legacy_added(legacy: Mapping[str, Any], values: Mapping[str, Any]) -> dict[int, AddedToken]:
    special = {str(values[name]) for name in NAMES if values.get(name)}
    special |= {str(token) for token in values.get("extra_special_tokens") or []}
    return {
        number: AddedToken(text, rstrip=False, lstrip=False, normalized=text not in special, special=text in special)
        for text, number in legacy.items()
    }


def _typed(value: Any) -> Any:
    """Turns mappings that say `"__type": "AddedToken"` into tokens, in lists too."""
    if isinstance(value, dict) and value.get("__type") == "AddedToken":
        return AddedToken(**{key: one for key, one in value.items() if key != "__type"})
    return [_typed(one) for one in value] if isinstance(value, list) else value


def _named(name: str, value: Any, by_text: Mapping[str, AddedToken]) -> Token | None:
    if value is not None and not isinstance(value, Token):
        raise TypeError(f"{name} must be a text or an added token; it is a {type(value).__name__}")
    return None if value is None else by_text.get(str(value), value)


def _extra(value: Any) -> tuple[Token, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, Token) for one in value):
        raise TypeError("extra_special_tokens must be a list of texts and added tokens")
    return tuple(value)
