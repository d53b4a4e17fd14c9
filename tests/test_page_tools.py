"""How pages and maps are read: links, anchors, commands and first sentences, on texts whose reading is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import maps
from tests.support.pages import anchors, blocks, commands, links

TEXT = """# A `study`, two [links](x.md)

See [one](one.md#a-b), ![two](two.svg), `[no](code.md)`, <img src="three.svg">.

```sh
RAY_AUTH_MODE=token python -m study run A.yaml --set a.b=1  # a comment
python -m study plan 'B C.yaml' | less
```

| `python -m study report DIR\\|URL [--serve [PORT]] [--pdf]` |

## A `study`, two links
"""


def test_links_are_those_outside_code() -> None:
    assert links(TEXT) == ["x.md", "one.md#a-b", "two.svg", "three.svg"]


def test_anchors_are_those_of_the_headings() -> None:
    assert anchors(TEXT) == {"a-study-two-links", "a-study-two-links-1"}


def test_commands_are_read_with_and_without_what_may_be_left_out() -> None:
    found = commands(TEXT, "python -m study")
    assert found[:2] == [["run", "A.yaml", "--set", "a.b=1"], ["plan", "B C.yaml"]]
    assert sorted(found[2:]) == [["report", "DIR"], ["report", "DIR", "--serve", "0", "--pdf"]]


def test_blocks_are_told_apart_by_language() -> None:
    assert len(blocks(TEXT, "sh")) == 1
    assert blocks(TEXT, "yaml") == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.py", '"""Names `a.b`: 1.5 things. And more."""\n', "Names `a.b`: 1.5 things."),
        ("a.yaml", "# One that\n# runs on.  Two.\nx: 1\n# three\n", "One that runs on."),
        ("a.md", "# A heading\n\ntext\n", "A heading."),
        ("a.html", "<!-- A page. -->\n<p>", "A page."),
        ("a.j2", "{#- A part of it. -#}\n<p>", "A part of it."),
        ("Dockerfile", "# An image.\nFROM x\n", "An image."),
    ],
)
def test_the_first_sentence_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str
) -> None:
    monkeypatch.setattr(maps, "ROOT", tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert maps.sentence(tmp_path / name) == said


def test_a_file_that_says_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.py must begin with a sentence"):
        maps.sentence(tmp_path / "a.py")


def test_a_new_file_and_a_new_folder_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "ROOT", tmp_path)
    monkeypatch.setattr(maps, "PAGES", {"room/README.md": ("later", "sub")})
    page = tmp_path / "room" / "README.md"
    page.parent.mkdir()
    page.write_text(f"# Room\n{maps.BEGIN}\n{maps.END}\nafter\n", encoding="utf-8")
    (page.parent / "__init__.py").write_text('"""A room."""\n', encoding="utf-8")
    (page.parent / "one.py").write_text('"""One thing."""\n', encoding="utf-8")
    assert maps.outdated() == ["room/README.md"]
    page.write_text(maps.rewritten("room/README.md"), encoding="utf-8")
    assert maps.outdated() == []
    assert page.read_text(encoding="utf-8").endswith(f"  one.py  One thing.\n```\n{maps.END}\nafter\n")
    (page.parent / "two.py").write_text('"""Two things."""\n', encoding="utf-8")
    assert maps.outdated() == ["room/README.md"]
    for folder in ("another", "sub"):
        (page.parent / folder).mkdir()
        (page.parent / folder / "__init__.py").write_text('"""A part."""\n', encoding="utf-8")
        (page.parent / folder / "three.py").write_text('"""Three."""\n', encoding="utf-8")
    names = [line.split()[0] for line in maps.room_map("room/README.md").splitlines() if line]
    assert names == ["room/", "one.py", "two.py", "room/sub/", "three.py", "room/another/", "three.py"]


def test_a_file_that_cannot_speak_is_listed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "ROOT", tmp_path)
    (tmp_path / "a.json").write_text("{}\n", encoding="utf-8")
    assert maps.sentence(tmp_path / "a.json") == ""
