"""Parts of a Markdown document as text, and the document as one HTML file that holds its pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

CSS = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1d1d1f; max-width: 68rem; margin: 2rem auto; padding: 0 1.2rem }
h1 { font-size: 1.7rem } h2 { font-size: 1.25rem; margin-top: 2.4rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e3e3e3; text-align: left; font-variant-numeric: tabular-nums }
th { background: #f5f5f7; white-space: nowrap } img { max-width: 100%; height: auto }
.wide { display: block; overflow-x: auto } .wide img { max-width: none }
small { display: block; color: #555; font-size: .9rem } li { margin: .2rem 0 }
"""


def plain(text: str) -> str:
    """Keep text from being taken for markup: names of estimators hold underscores, paths may hold anything."""
    return re.sub(r"^[-+#]|[\\`*_<>|&\[\]]", r"\\\g<0>", " ".join(text.split()))


def heading(text: str, level: int = 2) -> str:
    """Return a heading; level 1 is the title."""
    return f"{'#' * level} {plain(text)}"


def bullets(items: Sequence[str]) -> str:
    """Return a list."""
    return "\n".join(f"- {plain(item)}" for item in items)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; all rows are as long as the header."""
    lines = [" | ".join(map(plain, line)) for line in (header, *rows)]
    lines.insert(1, " | ".join(["---"] * len(header)))
    return "\n".join(f"| {line} |" for line in lines)


def picture(path: Path, caption: str) -> str:
    """Return a picture, by its path from the document's folder, and what it shows."""
    return f"![{plain(caption)}]({path})"


def to_html(markdown: str, title: str, folder: Path, wide: Collection[Path] = ()) -> str:
    """Return a document as HTML that needs no other file: pictures are within it.

    Args:
        markdown: the document.
        title: for the window.
        folder: from which the document names its pictures, PNG files.
        wide: pictures that are not shrunk to the page, but scrolled.
    """

    def image(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
        path, caption = Path(tokens[index].attrs["src"]), escape(tokens[index].content)
        data = base64.b64encode((folder / path).read_bytes()).decode()
        kind = " class=wide" if path in wide else ""
        return f'<span{kind}><img alt="{caption}" src="data:image/png;base64,{data}"><small>{caption}</small></span>'

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", image)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{parser.render(markdown)}</body>\n</html>\n"
    )
