"""Files and folders of other projects' models: JSON, pointers in place of files, models one folder deeper."""

import json
from pathlib import Path
from typing import Any

from w2v_jax.data import git_lfs
from w2v_jax.errors import UserError

ANNEX_POINTER = b"/annex/objects/"
LONGEST_LINK_BYTES = 1000
PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")  # how a web page begins, in lower case
MOST_NAMED = 6  # names in a message


def refuse_pointer(path: Path) -> None:
    """Refuse a file that only stands for another one.

    Raises:
        UserError: it is a Git LFS or git-annex pointer, a web page, a link to a file that is not there, or a
            link that was copied as a text.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to a file that is not there: download the model again")
    start = _start(path)
    if start.startswith(git_lfs.POINTER):
        raise UserError(f"{path} is a Git LFS pointer, not the file itself: run git lfs pull in its clone")
    if start.startswith(ANNEX_POINTER):
        raise UserError(f"{path} is a git-annex pointer, not the file itself: run git annex get in its clone")
    if start.startswith(b"../") and len(start) < LONGEST_LINK_BYTES:
        raise UserError(f"{path} is a link that was copied as a text: copy its folder again and follow links")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(PAGES):
        raise UserError(f"{path} is a web page, not the file itself: download it again")


def refuse_text(path: Path) -> None:
    """Refuse a file of weights that only stands for another one, or that is a text.

    Raises:
        UserError: see `refuse_pointer`; or it begins as a text, such as a server's error message.
    """
    refuse_pointer(path)
    start = _start(path)
    if start.strip() and all(byte >= 32 or byte in b"\t\n\r" for byte in start) and start.isascii():
        raise UserError(f"{path} is a text, not weights: download it again")


def _start(path: Path) -> bytes:
    """The first bytes of a file; none if it cannot be read, for its reader then says why."""
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_LINK_BYTES)
    except OSError:
        return b""


def read_settings(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON file that holds one table.

    Args:
        path: the file, in UTF-8, with a byte order mark or without.
        what: what it should be, for messages: "a config.json of a Hugging Face model".

    Raises:
        UserError: it is missing, a pointer, no JSON, or no table.
    """
    refuse_pointer(path)
    try:
        held = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not {what} ({error})") from error
    if not isinstance(held, dict):
        raise UserError(f"{path} is not {what} (it holds no table of settings)")
    return held


def read_optional(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON file as `read_settings` does; an empty table if there is no such file.

    Raises:
        UserError: it is a pointer, no JSON, or no table.
    """
    return read_settings(path, what) if path.exists() or path.is_symlink() else {}


def refuse_outer_folder(folder: Path) -> None:
    """Refuse a folder whose model is in a folder inside it, and name that one.

    Raises:
        UserError: it holds no config.json, and folders in it do: a hub cache, a trainer's output.
    """
    if (folder / "config.json").exists() or not folder.is_dir():
        return
    reference = folder / "refs" / "main"
    snapshot = folder / "snapshots" / (reference.read_text().strip() if reference.is_file() else "")
    if reference.is_file() and snapshot.is_dir():
        inside = [snapshot]
    else:
        patterns = ("*/config.json", "snapshots/*/config.json", "models--*/snapshots/*/config.json")
        inside = sorted({path.parent for pattern in patterns for path in folder.glob(pattern)})
    if inside:
        hub = (folder / "snapshots").is_dir()
        whole = "the root of a model in a Hugging Face cache" if hub else "a folder around models"
        raise UserError(f"{folder} is {whole}: give {' or '.join(map(str, inside[:MOST_NAMED]))}")


def named(names: list[str]) -> str:
    """Some names for a message, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
