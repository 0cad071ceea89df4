"""A document of headings, paragraphs, lists, tables and pictures, written as Markdown and as one HTML file."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

CSS = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1d1d1f; max-width: 68rem; margin: 2rem auto; padding: 0 1.2rem }
h1 { font-size: 1.7rem } h2 { font-size: 1.25rem; margin-top: 2.4rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e3e3e3; text-align: left; font-variant-numeric: tabular-nums }
th { background: #f5f5f7; white-space: nowrap } figure { margin: 1.2rem 0 } img { max-width: 100%; height: auto }
figure.wide { overflow-x: auto } figure.wide img { max-width: none }
figcaption { color: #555; font-size: .9rem } li { margin: .2rem 0 }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table; all rows are as long as the header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG file and what it shows; a wide one is not shrunk to the page, but scrolled."""

    path: Path
    caption: str
    wide: bool = False


Block = Heading | Paragraph | Bullets | Table | Picture


def to_markdown(blocks: Sequence[Block], folder: Path) -> str:
    """Return the document as Markdown, which names pictures by their paths from a folder."""
    return "\n\n".join(_markdown(block, folder) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """Return the document as HTML that needs no other file: pictures are within it."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block, folder: Path) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Bullets(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Table(header, rows):
            lines = [header, ["---"] * len(header), *rows]
            return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)
        case Picture(path, caption, _):
            return f"![{_plain(caption)}]({path.relative_to(folder)})"


def _plain(text: str) -> str:
    """Keep text from being taken for markup: names of estimators hold underscores, paths may hold anything."""
    return text if set(text) == {"-"} else re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Table(header, rows):
            head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
            lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
            return (
                f"<table><thead><tr>{head}</tr></thead>"
                f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
            )
        case Picture(path, caption, wide):
            data = base64.b64encode(path.read_bytes()).decode()
            kind = " class=wide" if wide else ""
            return (
                f'<figure{kind}><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
