"""Reads YAML of users under strict limits: plain data, small, without surprises; and writes it.

Plain words mean what they look like: only `true` and `false` are booleans, `5e-4` is a number, `12:30` and dates are
text (as in YAML 1.2, https://yaml.org/spec/1.2.2/#103-core-schema).
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from study.errors import Absent, ConfigError, ConfigFault, printable, shown
from trainables.guarded_files import FileRefusedError, open_regular

MAX_BYTES = 2**20
MAX_NODES = 20_000
MAX_DEPTH = 50
MAX_DIGITS = 100
_LINE_END = re.compile(r"\r\n|\r|\n")
_SCALARS = {  # tag: the pattern of its plain words, and the characters that they start with
    "null": (re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    "int": (re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), list("-+0123456789")),
    "float": (
        re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
        list("-+.0123456789"),
    ),
}


def read_yaml(path: Path | str) -> Any:
    """The data of a YAML file. Raises ConfigError where it is missing, or breaks a rule of `parse_yaml`."""
    name = str(path)
    try:
        if not os.path.exists(path):  # which takes names of any length
            raise _error(name, "", "must be a file that is there", "Check its path.")
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
    except FileRefusedError as error:
        kind = error.found.removeprefix(f"{path} ")
        raise _error(name, "", f"must be a file that can be read; it {kind}", "Check its path.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _error(name, "", f"must be a file that can be read: {reason}", "Check its path.") from None
    return parse_yaml(data, name)


def parse_yaml(text: bytes | str, name: str) -> Any:
    """The data of a YAML text: mappings with text keys, lists, text, numbers, booleans and null.

    `name` stands for the file in messages. UTF-8, with or without byte order mark, any line ends. Raises ConfigError
    for more than 1 MiB, tags, merge keys, duplicate or non-text keys, several documents, aliases that hold themselves,
    more than 20,000 values or 1 MiB of text with aliases written out, nesting deeper than 50, control characters, and
    text that is not YAML.
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(_decoded(text, name), name)
        node = loader.get_single_node()
        return None if node is None else loader.value(node)
    except yaml.YAMLError as error:
        raise _yaml_error(error, name) from None
    except (ValueError, OverflowError) as error:  # PyYAML does not catch all, for example of the escape "\\U99999999"
        raise _error(name, "", f"must be YAML: {error}", "Check escapes and directives.") from None
    finally:
        if loader is not None:
            loader.dispose()


def _decoded(text: bytes | str, name: str) -> str:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise _error(name, "", f"must be at most {MAX_BYTES // 2**20} MiB", "Keep data in files of their own.")
    try:
        decoded = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _line(data[: error.start].decode("utf-8"))
        raise _error(name, place, "must be UTF-8 text", "Save the file as UTF-8.") from None
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(decoded):
        place, found = _line(decoded[: unprintable.start()]), f"U+{ord(unprintable[0]):04X}"
        raise _error(name, place, f"must have no control characters; there is {found}", "Save the file as UTF-8 text.")
    return decoded


def _line(before: str) -> str:
    return f"line {1 + len(_LINE_END.findall(before))}"


def _yaml_error(error: yaml.YAMLError, name: str) -> ConfigError:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        key = f"line {mark.line + 1}" if mark else ""
        if error.context == "expected a single document in the stream":
            return _error(name, key, "must be one document", "Remove `---` and what follows it.")
        problem = " ".join(filter(None, (error.context, error.problem)))
        return _error(name, key, f"must be YAML: {problem}", "Check indentation, brackets, quotes and colons.")
    return _error(name, "", f"must be YAML: {str(error).splitlines()[0]}", "Check indentation, brackets and quotes.")


def _error(name: str, key: str, rule: str, remedy: str) -> ConfigError:
    return ConfigError([ConfigFault(name, key, Absent.UNSHOWN, rule, remedy)])


class _Loader(yaml.SafeLoader):
    """Composes nodes under the limits, and makes values of them itself: none of PyYAML's constructors runs."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._file = name
        self._depth = 0
        self._nodes = 0
        self._characters = 0
        self._open: set[str] = set()  # anchors whose nodes are being read
        # A node's id: the nodes, levels and characters of text in it, aliases written out.
        self._shapes: dict[int, tuple[int, int, int]] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Any:
        """The next node, after its event is checked; the greatest depth bounds the recursion."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, super().compose_node, parent, index)
        if event.tag is not None:
            rule = f"the tag {shown(event.tag)} is not allowed"
            raise self._fault(event, rule, "Write the value without a tag.")
        if event.anchor is not None:
            self._open.add(event.anchor)
        self._enter(event, 1, 1, _length(event))
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._open.discard(event.anchor)
        self._shapes[id(node)] = self._shape(node)
        return node

    def _alias(self, event: Any, compose: Any, parent: Node | None, index: Any) -> Any:
        if event.anchor in self._open:
            raise self._fault(event, f"the alias *{event.anchor} stands for what holds it", "Write the value out.")
        node = compose(parent, index)
        self._enter(event, *self._shapes[id(node)])
        return node

    def _enter(self, event: Any, nodes: int, levels: int, characters: int) -> None:
        self._nodes += nodes
        self._characters += characters
        if self._nodes > MAX_NODES:
            rule = f"must have at most {MAX_NODES:,} values, aliases written out"
            raise self._fault(event, rule, "Write less, or use fewer aliases.")
        if self._characters > MAX_BYTES:
            rule = f"must have at most {MAX_BYTES // 2**20} MiB of text, aliases written out"
            raise self._fault(event, rule, "Use fewer aliases.")
        if self._depth + levels > MAX_DEPTH:
            raise self._fault(event, f"must be nested at most {MAX_DEPTH} deep", "Write it flatter.")

    def _shape(self, node: Any) -> tuple[int, int, int]:
        children: list[Node] = []
        if isinstance(node, SequenceNode):
            children = node.value
        elif isinstance(node, MappingNode):
            children = [child for pair in node.value for child in pair]
        shapes = [self._shapes[id(child)] for child in children]
        own = len(node.value) if isinstance(node, ScalarNode) else 0
        return (
            1 + sum(nodes for nodes, _, _ in shapes),
            1 + max((levels for _, levels, _ in shapes), default=0),
            own + sum(characters for _, _, characters in shapes),
        )

    def value(self, node: Any) -> Any:
        """The node's value; that of an aliased node is made anew each time, so that no two places share it."""
        if isinstance(node, SequenceNode):
            return [self.value(child) for child in node.value]
        if isinstance(node, MappingNode):
            return self._mapping(node)
        return self._scalar(node)

    def _mapping(self, node: MappingNode) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode) or not isinstance(key := self._scalar(key_node), str):
                raise self._fault(key_node, "a key must be text", "Put it into quotes.")
            if key == "<<" and key_node.style is None:
                raise self._fault(key_node, "merge keys (<<) are not allowed", "Write the keys out.")
            if key in result:
                raise self._fault(key_node, f"the key `{printable(key, 80)}` must stand only once", "Keep one of them.")
            result[key] = self.value(value_node)
        return result

    def _scalar(self, node: ScalarNode) -> Any:
        kind, text = node.tag.rsplit(":", 1)[-1], node.value
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            if len(text) > MAX_DIGITS:
                raise self._fault(node, f"a number must have at most {MAX_DIGITS} digits", "Write a smaller one.")
            return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        if kind == "float":
            return float(text.replace(".", "") if text[-1] in "fFnN" else text)
        if any(unicodedata.category(one) in ("Cc", "Cs") and one not in "\t\n\r" for one in text):
            raise self._fault(node, "text must have no control characters", "Remove them, or their escapes.")
        return text

    def _fault(self, place: Any, rule: str, remedy: str) -> ConfigError:
        return _error(self._file, f"line {place.start_mark.line + 1}", rule, remedy)


def _length(event: Any) -> int:
    return len(event.value) if isinstance(event, yaml.ScalarEvent) else 0


def strict_text(data: Any) -> str:
    """The data as YAML, innermost collections on one line; `parse_yaml` and readers of YAML 1.1 read it back equal."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


class _Dumper(yaml.SafeDumper):
    """Writes everything out, and quotes what either YAML version would misread."""

    def ignore_aliases(self, data: Any) -> bool:
        """Makes no aliases."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


_Loader.yaml_implicit_resolvers = {}  # without those of YAML 1.1
for _tag, (_pattern, _starts) in _SCALARS.items():
    _full = re.compile(rf"(?:{_pattern.pattern})\Z")
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _full, _starts)
