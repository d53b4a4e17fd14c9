"""Reads HTML as a browser would: its elements, what they load and link to, and its text."""

from __future__ import annotations

from html.parser import HTMLParser

LOADING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "ping", "manifest", "codebase"}


class HtmlPage(HTMLParser):
    """The elements of a page or a piece of one, in their order."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []  # each start tag with the names of its attributes
        self.values: list[str] = []  # of attributes
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[str] = []
        self.headings: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(str(markup))  # what is `Markup` would escape its parts again
        self.close()

    @property
    def tags(self) -> list[str]:
        """The start tags' names."""
        return [element[0] for element in self.elements]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]
        if tag == "script":
            self.scripts.append("")
        for name, value in attrs:
            if name in LOADING or (name == "href" and tag != "a"):
                self.loads.append(f"{tag} {name}={value}")
            elif name == "href":
                self.links.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            elif name.startswith("on"):
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
            return
        self.text += data
        if self._inside in ("h1", "h2", "h3"):
            self.headings.append(data)
