"""Layouts of several files that refer to one another: Kaldi, Lhotse and fairseq."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from experiments.data.importing.recording import (
    Found,
    Recording,
    first_line,
    known,
    split_of_file,
    split_of_folders,
    text_lines,
)
from experiments.data.importing.tables import read_rows
from experiments.data.importing.tree import Tree
from w2v_jax.errors import UserError

ABOVE = 3  # folders above Kaldi's data folder that a path of wav.scp may be relative to
PIPE = "pipe"
PIPE_DETAIL = "the audio is the output of a command, which is not run: write it to a file first"
LHOTSE_KINDS = ("recordings", "supervisions", "cuts")
NO_DURATION = -1.0  # the end of Kaldi's segments that go on to the end of the recording


def read_kaldi(tree: Tree) -> Found:
    """Read every folder with a wav.scp, its utt2spk or spk2utt, its text and its segments.

    Raises:
        UserError: a file cannot be read, or there is no wav.scp.
    """
    found = Found(left_out=list(tree.left_out), speakers_from="utt2spk", texts_from="text")
    scripts = tree.named("wav.scp")
    if not scripts:
        raise UserError(f"no wav.scp below {tree.root}")
    for script in scripts:
        _kaldi_folder(tree, PurePosixPath(script).parent.as_posix(), found)
    return found


def _kaldi_folder(tree: Tree, folder: str, found: Found) -> None:
    at = tree.root / folder

    def pairs(name: str) -> dict[str, str]:
        if not (at / name).is_file():
            return {}
        split_lines = (line.strip().split(maxsplit=1) for line in text_lines(at / name))
        return {parts[0]: parts[1].strip() if len(parts) > 1 else "" for parts in split_lines}

    audio = pairs("wav.scp")
    speakers = pairs("utt2spk") or {
        utterance: speaker for speaker, held in pairs("spk2utt").items() for utterance in held.split()
    }
    texts, segments = pairs("text"), pairs("segments")
    folders = (at, tree.root, *list(tree.root.resolve().parents)[:ABOVE], Path.cwd())
    paths = {name: tree.find(value, folders) for name, value in audio.items() if not _is_no_file(value)}
    name_of_split = split_of_folders(f"{folder}/wav.scp") or split_of_folders(f"{at.resolve().name}/wav.scp")
    for utterance, segment in (segments or dict.fromkeys(audio, "")).items():
        recording, start, end, channel = utterance, None, None, None
        if segments:
            try:
                recording, start, end, channel = _kaldi_segment(segment)
            except ValueError:
                found.leave_out(utterance, "malformed row", f"segments of {folder}: {segment}")
                continue
        value, path = audio.get(recording), paths.get(recording)
        if value is None:
            found.leave_out(utterance, "missing", f"{recording} is not in wav.scp")
        elif reason := _is_no_file(value):
            detail = PIPE_DETAIL if reason == PIPE else f"{value}: archives of Kaldi are not read"
            found.leave_out(utterance, reason, detail)
        elif path is None:
            found.leave_out(utterance, "missing", f"no file {value}, or several of this name")
        else:
            found.recordings.append(
                Recording(
                    name=utterance,
                    path=path,
                    speaker=known(speakers.get(utterance)),
                    text=" ".join(texts.get(utterance, "").split()),
                    start=start,
                    end=end,
                    channel=channel,
                    split=name_of_split,
                )
            )
    if orphans := len([utterance for utterance in texts if utterance not in (segments or audio)]):
        found.notes.append(f"{orphans} transcripts without a recording in {folder}/text")


def _is_no_file(value: str) -> str:
    """Say why the second field of wav.scp names no audio file; empty where it does."""
    if value.endswith("|") or value.startswith("|") or value == "-":
        return PIPE
    return "archive" if value.rpartition(":")[2].isdigit() and ".ark:" in value else ""


def _kaldi_segment(text: str) -> tuple[str, float, float | None, int | None]:
    recording, start, end, *rest = text.split()
    seconds = float(end)
    return (
        recording,
        float(start),
        None if seconds == NO_DURATION else seconds,
        int(rest[0]) if rest else None,
    )


def read_lhotse(tree: Tree) -> Found:
    """Read recordings with their supervisions, or else cuts.

    Raises:
        UserError: a file cannot be read.
    """
    found = Found(left_out=list(tree.left_out), speakers_from="supervisions", texts_from="supervisions")
    names = {kind: tree.named(f"*{kind}*.jsonl", f"*{kind}*.jsonl.gz") for kind in LHOTSE_KINDS}
    if names["recordings"] and names["supervisions"]:
        if names["cuts"]:
            found.notes.append(f"{len(names['cuts'])} files of cuts were not read: the supervisions hold all")
        _lhotse_supervisions(tree, names, found)
        return found
    if not names["cuts"] and not names["recordings"]:
        raise UserError(f"{tree.root} holds neither cuts nor recordings of Lhotse (*cuts*.jsonl.gz)")
    for file in names["cuts"] or names["recordings"]:
        for item in _objects(tree, file, found):
            cut = item if names["cuts"] else {"recording": item, "id": item.get("id")}
            _unless_malformed(_lhotse_cut, tree, file, cut, found)
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
    for number, detail in table.bad:
        found.leave_out(f"{file}, line {number}", "malformed row", detail)
    return table.rows


def _lhotse_supervisions(tree: Tree, names: Mapping[str, Sequence[str]], found: Found) -> None:
    """Pair supervisions with recordings by identifier: those of the same split first."""
    recordings: dict[tuple[str, str], Mapping[str, Any]] = {}
    for file in names["recordings"]:
        for item in _objects(tree, file, found):
            recordings[split_of_file(file), str(item.get("id"))] = item
            recordings.setdefault(("any", str(item.get("id"))), item)
    supervised: set[str] = set()

    def read(tree: Tree, file: str, item: Mapping[str, Any], found: Found) -> None:
        name = str(item.get("recording_id"))
        recording = recordings.get((split_of_file(file), name)) or recordings.get(("any", name))
        supervised.add(name)
        if recording is None:
            found.leave_out(str(item.get("id")), "missing", f"no recording {name}")
        else:
            _lhotse_recording(tree, file, recording, item, 0.0, found)

    for file in names["supervisions"]:
        for item in _objects(tree, file, found):
            _unless_malformed(read, tree, file, item, found)
    for name in dict.fromkeys(name for _, name in recordings):
        if name not in supervised:
            found.leave_out(name, "without a supervision", "no supervision says who speaks, and when")


def _lhotse_cut(tree: Tree, file: str, cut: Mapping[str, Any], found: Found) -> None:
    """Add the supervisions of a cut, or the whole cut where it has none."""
    name = str(cut.get("id"))
    if not isinstance(cut.get("recording"), dict):
        kind = cut.get("type", "a cut")
        found.leave_out(name, "no single recording", f"{kind} without a recording, such as a mix or features")
        return
    start = float(cut.get("start", 0.0))
    whole = {name: cut[name] for name in ("id", "duration", "channel") if name in cut}
    for item in cut.get("supervisions") or [whole]:
        _lhotse_recording(tree, file, cut["recording"], item, start, found)


def _lhotse_recording(
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
    path = tree.find(text, ((tree.root / file).parent, tree.root, Path.cwd()))
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


def is_fairseq(path: Path) -> bool:
    """Tell whether a .tsv is a manifest of fairseq: the first line is a folder, without columns."""
    line = first_line(path)
    if not line or "\t" in line or "," in line or not line.startswith(("/", ".", "~")):
        return False
    with path.open(encoding="utf-8", errors="replace") as lines:
        next(lines)
        fields = next(lines, "").rstrip("\r\n").split("\t")
    return len(fields) == 2 and fields[1].isdigit()


def read_fairseq(tree: Tree) -> Found:
    """Read manifests (train.tsv and others) with their words or letters; manifests name no speakers.

    Raises:
        UserError: a file cannot be read, there is no manifest, or there are fewer labels than recordings.
    """
    found = Found(left_out=list(tree.left_out), speakers_from="nothing: manifests of fairseq name none")
    manifests = [file for file in tree.named("*.tsv") if is_fairseq(tree.root / file)]
    if not manifests:
        raise UserError(
            f"no manifest of fairseq below {tree.root}: its first line is the folder of the audio"
        )
    labelled = []
    for file in manifests:
        root, *lines = text_lines(tree.root / file)
        labels = _fairseq_labels(tree, file, len(lines))
        labelled += [file] if labels else []
        folders = (Path(root.strip()).expanduser(), (tree.root / file).parent / root.strip(), tree.root)
        for number, line in enumerate(lines):
            relative = line.split("\t")[0]
            path = tree.find(relative, folders)
            if path is None:
                found.leave_out(relative, "missing", f"{file}: no such file below {root}")
                continue
            text = labels[number] if labels else ""
            found.recordings.append(Recording(name=relative, path=path, text=text, split=split_of_file(file)))
    found.texts_from = f".wrd or .ltr beside {', '.join(labelled)}" if labelled else "no .wrd or .ltr"
    return found


def _fairseq_labels(tree: Tree, file: str, count: int) -> list[str]:
    """Read the transcripts beside a manifest, a line for each of its recordings; empty without any."""
    for suffix in (".wrd", ".ltr"):
        labels = file.removesuffix(".tsv") + suffix
        path = tree.root / labels
        if not path.is_file():
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        lines = lines[:-1] if lines and not lines[-1] else lines
        if len(lines) != count:
            raise UserError(f"{path} has {len(lines)} lines and {file} lists {count} recordings")
        if suffix == ".ltr":
            lines = ["".join(line.split()).replace("|", " ") for line in lines]
        return [" ".join(line.split()) for line in lines]
    return []
