"""Layouts of several files that refer to one another: Kaldi and fairseq."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from experiments.data.importing.recording import (
    PIPE,
    PIPE_DETAIL,
    Found,
    Recording,
    first_line,
    known,
    split_of_file,
    text_lines,
)
from experiments.data.importing.tree import Tree
from w2v_jax.errors import UserError

ABOVE = 3  # folders above Kaldi's data folder that a path of wav.scp may be relative to
NO_DURATION = -1.0  # the end of Kaldi's segments that go on to the end of the recording


def read_kaldi(tree: Tree) -> Found:
    """Read every folder with a wav.scp, its utt2spk or spk2utt, its text and its segments.

    Raises:
        UserError: a file cannot be read, or there is no wav.scp.
    """
    found = Found(speakers_from="utt2spk", texts_from="text")
    scripts = tree.named("wav.scp")
    if not scripts:
        raise UserError(f"no wav.scp below {tree.root}")
    for script in scripts:
        _kaldi_folder(tree, PurePosixPath(script).parent.as_posix(), found)
    return found


def _kaldi_folder(tree: Tree, folder: str, found: Found) -> None:
    at = tree.root / folder
    scripts = _kaldi_lines(at / "wav.scp")
    audio = _first_lines(scripts, f"{folder}/wav.scp", found)
    segments = _first_lines(_kaldi_lines(at / "segments"), f"{folder}/segments", found)
    speakers = _first_lines(_kaldi_speakers(at), f"{folder}/utt2spk or spk2utt", found)
    texts = _first_lines(_kaldi_lines(at / "text"), f"{folder}/text", found)
    folders = (at, tree.root, *list(tree.root.resolve().parents)[:ABOVE], Path.cwd())
    paths = {value: tree.find(value, folders) for _, value in scripts if not _is_no_file(value)}
    found.named |= {path for path in paths.values() if path is not None}
    name_of_split = found.split_of_folders(f"{folder}/wav.scp") or _split_of_data_folder(at, found)
    for utterance, segment in (segments or dict.fromkeys(audio, "")).items():
        recording, start, end, channel = utterance, None, None, None
        if segments:
            try:
                recording, start, end, channel = _kaldi_segment(segment)
            except ValueError:
                found.leave_out(utterance, "malformed row", f"segments of {folder}: {segment}")
                continue
        if (value := audio.get(recording)) is None:
            found.leave_out(utterance, "missing", f"{recording} is not in wav.scp")
        elif reason := _is_no_file(value):
            detail = PIPE_DETAIL if reason == PIPE else f"{value}: archives of Kaldi are not read"
            found.leave_out(utterance, reason, detail)
        elif (path := paths[value]) is None:
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
    if segments:
        used = {name for segment in segments.values() for name in segment.split()[:1]}
        for name in audio:
            if name not in used:
                found.leave_out(name, "without a segment", f"no line of {folder}/segments names it")
    if orphans := len([utterance for utterance in texts if utterance not in (segments or audio)]):
        found.notes.append(f"{orphans} transcripts without a recording in {folder}/text")


def _kaldi_lines(path: Path) -> list[tuple[str, str]]:
    """Read lines of a name and a value; none without the file."""
    if not path.is_file():
        return []
    parts = (line.strip().split(maxsplit=1) for line in text_lines(path))
    return [(name, rest[0].strip() if rest else "") for name, *rest in parts]


def _kaldi_speakers(at: Path) -> list[tuple[str, str]]:
    """Read the speaker of each utterance from utt2spk, or else from spk2utt."""
    spoken = _kaldi_lines(at / "spk2utt")
    return _kaldi_lines(at / "utt2spk") or [(name, who) for who, held in spoken for name in held.split()]


def _first_lines(pairs: Sequence[tuple[str, str]], file: str, found: Found) -> dict[str, str]:
    """Keep the first line of each name; repeated lines of recordings are left out, and others are noted."""
    kept: dict[str, str] = {}
    repeated: list[str] = []
    for name, value in pairs:
        if name in kept:
            repeated.append(name)
        kept.setdefault(name, value)
    if file.endswith(("/wav.scp", "/segments")):
        for name in repeated:
            found.leave_out(name, "duplicate", f"an earlier line of {file} has this name")
    elif repeated:
        example = f"{len(repeated)} duplicate lines in {file} (such as {repeated[0]}'s)"
        found.notes.append(f"{example}: the first one of each name counts")
    return kept


def _split_of_data_folder(at: Path, found: Found) -> str:
    """Find the split in the name of Kaldi's data folder, such as train_si284, which is no speaker's."""
    name = at.resolve().name
    if split := split_of_file(name):
        found.split_folders[name] = split
    return split


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
    found = Found(speakers_from="nothing: manifests of fairseq name none")
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
            found.named.add(path)
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
