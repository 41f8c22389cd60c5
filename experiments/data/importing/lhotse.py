"""Lhotse's layout: recordings with supervisions, or cuts, in lines of JSON."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.data.importing.recording import PIPE, PIPE_DETAIL, Found, Recording, known, split_of_file
from experiments.data.importing.tables import read_rows
from experiments.data.importing.tree import Tree
from w2v_jax.errors import UserError

KINDS = ("recordings", "supervisions", "cuts")


def read(tree: Tree) -> Found:
    """Read recordings with their supervisions, or else cuts.

    Raises:
        UserError: a file cannot be read.
    """
    found = Found(speakers_from="supervisions", texts_from="supervisions")
    names = {kind: tree.named(f"*{kind}*.jsonl", f"*{kind}*.jsonl.gz") for kind in KINDS}
    if names["recordings"] and names["supervisions"]:
        if names["cuts"]:
            found.notes.append(f"{len(names['cuts'])} files of cuts were not read: the supervisions hold all")
        _read_supervisions(tree, names, found)
        return found
    if not names["cuts"] and not names["recordings"]:
        raise UserError(f"{tree.root} holds neither cuts nor recordings of Lhotse (*cuts*.jsonl.gz)")
    for file in names["cuts"] or names["recordings"]:
        for item in _objects(tree, file, found):
            cut = item if names["cuts"] else {"recording": item, "id": item.get("id")}
            _remember_files(tree, file, cut, found)
            _unless_malformed(_add_cut, tree, file, cut, found)
    return found


def _unless_malformed(
    read: Callable[..., None], tree: Tree, file: str, item: Mapping[str, Any], found: Found
) -> None:
    """Read an object of Lhotse's, or list it where its fields have other types than Lhotse's."""
    try:
        read(tree, file, item, found)
    except (TypeError, ValueError, AttributeError) as error:
        found.leave_out(str(item.get("id")), "malformed row", f"{file}: {error}")


def _objects(tree: Tree, file: str, found: Found) -> Sequence[Mapping[str, Any]]:
    table = read_rows(tree.root / file)
    for number, detail, _ in table.bad:
        found.leave_out(f"{file}, line {number}", "malformed row", detail)
    return table.rows


def _read_supervisions(tree: Tree, names: Mapping[str, Sequence[str]], found: Found) -> None:
    """Pair supervisions with recordings by identifier: those of the same split first."""
    recordings: dict[tuple[str, str], Mapping[str, Any]] = {}
    for file in names["recordings"]:
        for item in _objects(tree, file, found):
            name = str(item.get("id"))
            _remember_files(tree, file, item, found)
            if recordings.setdefault((split_of_file(file), name), item) is not item:
                found.leave_out(name, "duplicate", f"{file}: an earlier recording has this name")
            recordings.setdefault(("any", name), item)
    supervised: set[str] = set()

    def pair(tree: Tree, file: str, item: Mapping[str, Any], found: Found) -> None:
        name = str(item.get("recording_id"))
        recording = recordings.get((split_of_file(file), name)) or recordings.get(("any", name))
        supervised.add(name)
        if recording is None:
            found.leave_out(str(item.get("id")), "missing", f"no recording {name}")
        else:
            _add_supervision(tree, file, recording, item, 0.0, found)

    for file in names["supervisions"]:
        for item in _objects(tree, file, found):
            _unless_malformed(pair, tree, file, item, found)
    for name in dict.fromkeys(name for _, name in recordings):
        if name not in supervised:
            found.leave_out(name, "without a supervision", "no supervision says who speaks, and when")


def _add_cut(tree: Tree, file: str, cut: Mapping[str, Any], found: Found) -> None:
    """Add the supervisions of a cut, or the whole cut where it has none."""
    name = str(cut.get("id"))
    if not isinstance(cut.get("recording"), dict):
        kind = cut.get("type", "a cut")
        found.leave_out(name, "no single recording", f"{kind} without a recording, such as a mix or features")
        return
    start = float(cut.get("start", 0.0))
    whole = {name: cut[name] for name in ("id", "duration", "channel") if name in cut}
    for item in cut.get("supervisions") or [whole]:
        _add_supervision(tree, file, cut["recording"], item, start, found)


def _add_supervision(
    tree: Tree, file: str, recording: Mapping[str, Any], item: Mapping[str, Any], offset: float, found: Found
) -> None:
    """Add one supervision; its times count from `offset` seconds on."""
    name = str(item.get("id"))
    channels = item.get("channel")
    wanted = [channels] if isinstance(channels, int) else list(channels or ())
    sources = recording.get("sources") or []
    fitting = [s for s in sources if not wanted or set(wanted) <= set(s.get("channels", wanted))]
    if not fitting:
        found.leave_out(name, "missing", f"recording {recording.get('id')} has no file of channel {wanted}")
        return
    source = fitting[0]
    if source.get("type") != "file":
        reason = PIPE if source.get("type") == "command" else f"{source.get('type')} source"
        found.leave_out(name, reason, PIPE_DETAIL if reason == PIPE else "the audio is not in a file")
        return
    text = str(source.get("source"))
    path = _find(tree, file, text)
    if path is None:
        found.leave_out(name, "missing", f"no file {text}, or several of this name")
        return
    start, duration = item.get("start", 0.0), item.get("duration")
    held = list(source.get("channels", [0]))
    found.recordings.append(
        Recording(
            name=name,
            path=path,
            speaker=known(item.get("speaker")),
            text=known(item.get("text")),
            start=offset + start,
            end=None if duration is None else offset + start + duration,
            channel=held.index(wanted[0]) if len(wanted) == 1 and wanted[0] in held else None,
            split=split_of_file(file),
        )
    )


def _remember_files(tree: Tree, file: str, item: Any, found: Found) -> None:
    """Remember the audio files of a recording, a cut or a mix of cuts, which may be left out later."""
    with contextlib.suppress(AttributeError, TypeError):  # a malformed object, which is listed later
        for source in item.get("sources") or ():
            if source.get("type") == "file" and (path := _find(tree, file, str(source.get("source")))):
                found.named.add(path)
        for held in (item.get("recording"), item.get("cut"), *(item.get("tracks") or ())):
            if held is not None:
                _remember_files(tree, file, held, found)


def _find(tree: Tree, file: str, text: str) -> Path | None:
    return tree.find(text, ((tree.root / file).parent, tree.root, Path.cwd()))
