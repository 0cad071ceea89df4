"""Puts the sources of the site together in build/docs, from which `make docs` builds it.

Links in the documents are relative to their own file, as GitHub wants them, also where they lead out of docs/. In the
site README.md is the first page and CONTRIBUTING.md another; every other file of the repository that a page links to is
copied below source/. The reference's pages name the packages whose docstrings mkdocstrings then puts there.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "build" / "docs"
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}  # of the repository: in the site
ROOMS = (
    "batch",
    "peers",
    "envs",
    "networks",
    "returns",
    "testing",
    "rollouts",
    "learner",
    "runs",
    "evaluation",
    "training",
    "comparison",
)
# Code, in which nothing is a link; or the target of a link into the repository, without its anchor.
CODE_OR_LINK = re.compile(r"^ *```.*?^ *```|`[^`\n]+`|(?<=\]\()(?P<target>(?!\w+:)[^)#\s]+)", re.DOTALL | re.MULTILINE)


def assemble() -> None:
    """Write the sources of the site.

    Raises:
        FileNotFoundError: a document links to a file that is not in the repository.
    """
    shutil.rmtree(SOURCES, ignore_errors=True)
    for path in (*sorted(ROOT.glob("docs/**/*.md")), *(ROOT / name for name in PAGES)):
        document = path.relative_to(ROOT).as_posix()
        text, linked = turn_links(path.read_text(encoding="utf-8"), document)
        write(in_site(document), text)
        for target in linked:
            if not (ROOT / target).is_file():
                raise FileNotFoundError(f"{document} links to {target}, which is not a file of the repository")
            (SOURCES / in_site(target)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / target, SOURCES / in_site(target))
    shutil.copy(ROOT / "docs" / "site.css", SOURCES)
    for name, text in reference().items():
        write(f"reference/{name}.md", text)


def turn_links(text: str, document: str) -> tuple[str, list[str]]:
    """Turn links as GitHub follows them into links of the site.

    Args:
        text: Markdown.
        document: where it lies in the repository.

    Returns:
        The text, and the files that it links to and that are no pages.
    """
    linked = []

    def turn(match: re.Match[str]) -> str:
        if match["target"] is None:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(document), match["target"]))
        if not target.endswith(".md"):
            linked.append(target)
        return posixpath.relpath(in_site(target), posixpath.dirname(in_site(document)) or ".")

    return CODE_OR_LINK.sub(turn, text), linked


def in_site(path: str) -> str:
    """Return where a file of the repository lies in the site."""
    return path.removeprefix("docs/") if path.startswith("docs/") else PAGES.get(path, f"source/{path}")


def reference() -> dict[str, str]:
    """Return the reference in Markdown: a page of the public names, and one for each room."""
    import a3c

    rows = [
        f"| [`{name}`][{thing.__module__}.{thing.__qualname__}] | {thing.__doc__.splitlines()[0]} |"
        for name, thing in ((name, getattr(a3c, name)) for name in a3c.__all__)
    ]
    intro = "Each is imported as `a3c.NAME`, when it is first used."
    pages = {"index": "\n".join(["# Public names", "", intro, "", "| name | |", "|---|---|", *rows, ""])}
    for room in ROOMS:
        files = [*sorted(ROOT.glob(f"a3c/{room}.py")), *sorted(ROOT.glob(f"a3c/{room}/**/*.py"))]
        blocks = [block(path, 1 if path == files[0] else 2) for path in files]
        pages[room] = "\n".join([f"---\ntitle: {room}\n---\n", *blocks])
    return pages


def block(path: Path, level: int) -> str:
    """Return what stands for a module's docstrings; of a package only its text, since its names are its modules'."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    members = ", members: false" if path.stem == "__init__" else ""
    return f"::: {name}\n    options: {{heading_level: {level}{members}}}\n"


def write(page: str, text: str) -> None:
    """Write a page of the site."""
    (SOURCES / page).parent.mkdir(parents=True, exist_ok=True)
    (SOURCES / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    assemble()
