"""Study files that are no YAML, or none that is safe to read: refused at once, with where, what and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.border.hostile import Hostile, table


def plan_bytes(content: bytes, name: str = "study.yaml") -> Callable[[Path, Path], list[str]]:
    """Returns a maker that writes a study file of these bytes and plans it."""

    def make(folder: Path, model: Path) -> list[str]:
        (folder / name).write_bytes(content)
        return ["plan", str(folder / name)]

    return make


def row(name: str, text: str | bytes, *words: str) -> Hostile:
    return Hostile(name, plan_bytes(text if isinstance(text, bytes) else text.encode()), words)


KEYS = "must hold the keys of a study"
BOMB = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10) if n else 1}]" for n in range(9))
LETTERS = "a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 1000) + "]"
CONTROL = "must have no control characters"


@table(
    row("nothing", "", KEYS, "Start with for example `name: my-study`"),
    row("a comment", "# nothing else", KEYS),
    row("blank lines", "\n \n\n", KEYS),
    row("null", "null", KEYS),
    row("a word", "word", KEYS),
    row("a number", "3.5", KEYS),
    row("a list", "- a\n- b", KEYS),
    row("an empty mapping", "{}", "name is missing", "space is missing", "dataset is missing"),
    row("random bytes", bytes(range(256)), "must be UTF-8 text", "Save the file as UTF-8"),
    row("Latin-1", "name: Größe".encode("latin-1"), "line 1", "must be UTF-8 text"),
    row("UTF-16", "name: a".encode("utf-16"), "must be UTF-8 text"),
    row("UTF-16 without a mark", "name: a".encode("utf-16-le"), CONTROL, "U+0000"),
    row("UTF-32", "name: a".encode("utf-32"), "must be UTF-8 text"),
    row("half a letter", b"name: \xc3", "line 1", "must be UTF-8 text"),
    row("an overlong letter", b"name: \xc0\x80", "must be UTF-8 text"),
    row("a surrogate", b"name: \xed\xa0\x80", "must be UTF-8 text"),
    row("gzip", b"\x1f\x8b\x08\x00\x00\x00", "must be UTF-8 text"),
    row("a zip", b"PK\x03\x04\x14\x00", CONTROL, "U+0003"),
    row("a PNG", b"\x89PNG\r\n\x1a\n", "must be UTF-8 text"),
    row("an ELF", b"\x7fELF\x02\x01\x01", CONTROL, "U+007F"),
    row("NUL", "name: a\0b", "line 1", CONTROL, "U+0000"),
    row("an escape sequence", "name: a\x1b[31mred", CONTROL, "U+001B"),
    row("a bell", "# \a", CONTROL, "U+0007"),
    row("a quoted NUL", 'name: "a\\0b"', "text must have no control characters"),
    row("a quoted escape", 'name: "\\e[2J"', "text must have no control characters"),
    row("a quoted surrogate", 'name: "\\ud800"', "must have no control characters"),
    row("an impossible letter", 'name: "\\U99999999"', "must be YAML", "Check escapes"),
    row("an unknown escape", 'name: "\\q"', "line 1", "must be YAML", "unknown escape"),
    row("a megabyte and a byte", b"#" * (2**20 + 1), "must be at most 1 MiB", "files of their own"),
    row("twenty megabytes", b"a: b\n" * 2**22, "must be at most 1 MiB"),
    row("lists without end", "a: " + "[" * 100_000, "nested at most 50 deep", "Write it flatter"),
    row("mappings without end", "{a: " * 100_000, "nested at most 50 deep"),
    row("dashes without end", "- " * 100_000 + "a", "nested at most 50 deep"),
    row("questions without end", "? " * 100_000, "nested at most 50 deep"),
    row("60 lists", "a: " + "[" * 60 + "]" * 60, "nested at most 50 deep"),
    row("30,000 values", "a: [" + "1," * 30_000 + "]", "at most 20,000 values"),
    row("a bomb of aliases", BOMB, "at most 20,000 values, aliases written out", "fewer aliases"),
    row("a bomb of letters", LETTERS, "at most 1 MiB of text, aliases written out"),
    row("an alias of itself", "a: &a [*a]", "stands for what holds it", "Write the value out"),
    row("an alias of nothing", "a: *b", "line 1", "must be YAML", "undefined alias"),
    row("an anchor twice", "a: &x 1\nb: &x 2\nc: *y", "must be YAML"),
    row("a merge key", "<<: {a: 1}", "merge keys (<<) are not allowed", "Write the keys out"),
    row("a key twice", "name: a\nname: b", "line 2", "`name` must stand only once", "Keep one of them"),
    row("a key twice in flow", "{name: a, name: b}", "must stand only once"),
    row("a number as key", "1: a", "a key must be text", "quotes"),
    row("null as key", "~: a", "a key must be text"),
    row("a boolean as key", "true: a", "a key must be text"),
    row("a list as key", "[a]: b", "a key must be text"),
    row("a mapping as key", "{a: b}: c", "a key must be text"),
    row("a tag of Python", "name: !!python/object/apply:os.system [id]", "is not allowed", "without a tag"),
    row("a tag of YAML", "name: !!str x", "is not allowed", "without a tag"),
    row("a tag of its own", "name: !x y", "is not allowed", "without a tag"),
    row("a tag on a list", "seeds: !!set {1, 2}", "is not allowed"),
    row("binary", "name: !!binary aGk=", "is not allowed"),
    row("two documents", "name: a\n---\nname: b", "must be one document", "Remove `---`"),
    row("an unknown directive", "%FOO bar\n---\nname: a", "name"),
    row("YAML of another version", "%YAML 9.9\n---\nname: a", "must be YAML"),
    row("a tab", "training:\n\tepochs: 1", "line 2", "must be YAML", "indentation"),
    row("a bracket left open", "name: [a", "must be YAML", "brackets"),
    row("a quote left open", 'name: "a', "must be YAML", "quotes"),
    row("two colons", "name: a: b", "line 1", "must be YAML", "colons"),
    row("wrong indentation", "training:\n    epochs: 1\n  max_steps: 2", "line 3", "must be YAML"),
    row("a percent sign", "name: %a", "must be YAML"),
    row("an at sign", "name: @a", "must be YAML"),
    row("a backtick", "name: `a`", "must be YAML"),
    row("JSON with a comment", '{"name": "a", // no\n}', "must"),
    row("a number of 200 digits", "seeds: [" + "9" * 200 + "]", "at most 100 digits", "Write a smaller one"),
    row("a hexadecimal number of 200", "seeds: [0x" + "f" * 200 + "]", "at most 100 digits"),
    row("a Python file", "import os\nprint(os.environ)", KEYS),
    row("an HTML page", "<!DOCTYPE html>\n<html></html>", KEYS),
    row("a git conflict", "<<<<<<< HEAD\nname: a\n=======\nname: b\n>>>>>>> x", "must be YAML"),
    row("a git-lfs pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12", "must"),
)
def test_what_is_no_study_file_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
