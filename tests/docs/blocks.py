"""Read the fenced blocks and code spans of the documentation; each fence's words say how it is tested.

python            executed in order, one namespace a document
console           `w2v-jax ...` lines executed in the same folder (and `ls`)
text              the output of the block right before it; `...` stands for anything
sh install        not executed: make targets, extras and commands are looked up
sh board          not executed: for another machine; runner.py's options are parsed

slow              the block runs in `make test-slow` alone
parity            the block needs torch and transformers: `make parity`
flower            the block needs flwr, and runs where it is installed
fails             every command of the block ends with status 2, and its message is compared
processes         every line is a process of its own; lines that end in & run side by side
rehearsed         takes hours, or data that are not here: `make test-slow` runs every line with options that
                  make it small (tests/docs/rehearsal.py); the lines as they stand are parsed and checked
parsed            needs machines or compilers that are not here, or installs: parsed and checked, not executed

A code span in a table that is a `w2v-jax` command with options counts as a `console rehearsed` block.
"""

import dataclasses
import re
from pathlib import Path

from markdown_it import MarkdownIt

from tests.paths import ROOT

WORDS = {
    "python": {"slow", "parity", "flower"},
    "console": {"slow", "parity", "fails", "processes", "rehearsed", "parsed"},
    "sh": {"install", "board"},
    "text": set(),
}
DOCS = ROOT / "docs"
GUIDES = [
    ROOT / "README.md",
    *(path for folder in (DOCS, DOCS / "guides", DOCS / "reference") for path in sorted(folder.glob("*.md"))),
]
# Their code spans are parsed; they have no fences of their own.
OTHERS = [
    ROOT / "CONTRIBUTING.md",
    DOCS / "results" / "README.md",
    *(path for name in ("decisions", "lab-notes") for path in sorted((DOCS / name).glob("*.md"))),
]
MARKDOWN = MarkdownIt("commonmark").enable("table")


class FenceError(Exception):
    """Raised for a fence that breaks the rules above."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: number of its first line of content, from 1.
        expected: the text of a `text` block that follows, or None.
    """

    document: str
    line: int
    language: str
    words: frozenset[str]
    text: str
    expected: str | None = None

    @property
    def executed(self) -> bool:
        """Tell whether a test runs the block; otherwise a test only looks at it."""
        return self.language in ("python", "console") and "parsed" not in self.words


def blocks_of(path: Path) -> list[Block]:
    """Return a document's blocks, `text` blocks folded into those that they follow, and its tables' commands.

    Raises:
        FenceError: no language, an unknown one or an unknown word; a `text` block that follows no executed
            block, or that anything would match.
    """
    found: list[Block] = []
    tokens = [token for token in MARKDOWN.parse(path.read_text(encoding="utf-8")) if not token.hidden]
    row = 0
    for place, token in enumerate(tokens):
        if token.type == "tr_open":
            row = token.map[0] + 1
        elif token.type == "inline" and tokens[place - 1].type == "td_open":
            found += [
                Block(path.name, row, "console", frozenset(["rehearsed"]), span)
                for span in _spans(token)
                if re.match(r"w2v-jax .*--\w", span)
            ]
        if token.type == "code_block":
            raise FenceError(f"{_where(path, token)}: an indented code block; use a fence with a language")
        if token.type != "fence":
            continue
        block = _block(path, token)
        if block.language != "text":
            found.append(block)
            continue
        previous = tokens[place - 1]
        if previous.type != "fence" or not found or not found[-1].executed or found[-1].expected is not None:
            raise FenceError(f"{_where(path, token)}: a text block must follow right after an executed one")
        if not block.text.replace(".", "").strip():
            raise FenceError(f"{_where(path, token)}: a text block that anything would match")
        found[-1] = dataclasses.replace(found[-1], expected=block.text)
    return found


def _where(path: Path, token) -> str:
    return f"{path.name}, line {token.map[0] + 1}"


def _block(path: Path, token) -> Block:
    language, *words = token.info.split() or [""]
    if language not in WORDS:
        raise FenceError(f"{_where(path, token)}: the language {language!r}, not one of {', '.join(WORDS)}")
    if unknown := set(words) - WORDS[language]:
        raise FenceError(f"{_where(path, token)}: {language} with the words {', '.join(sorted(unknown))}")
    if language == "sh" and len(words) != 1:
        raise FenceError(f"{_where(path, token)}: sh needs one of {', '.join(sorted(WORDS['sh']))}")
    return Block(path.name, token.map[0] + 2, language, frozenset(words), token.content)


def _spans(token) -> list[str]:
    return [" ".join(child.content.split()) for child in token.children or [] if child.type == "code_inline"]


def spans_of(path: Path) -> list[tuple[int, str]]:
    """Return (line, text) of a document's code spans; the line is that of their paragraph."""
    tokens = MARKDOWN.parse(path.read_text(encoding="utf-8"))
    return [((token.map or [0])[0] + 1, span) for token in tokens for span in _spans(token)]


def links_of(path: Path) -> list[str]:
    """Return the targets of a document's links and pictures."""
    tokens = MARKDOWN.parse(path.read_text(encoding="utf-8"))
    children = [child for token in tokens for child in token.children or []]
    return [
        str(child.attrs["href" if child.type == "link_open" else "src"])
        for child in children
        if child.type in ("link_open", "image")
    ]


def command_lines(text: str) -> list[str]:
    """Return a block's lines with continuations joined, without blank lines and comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
