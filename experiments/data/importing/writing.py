"""Measure recordings, and write them in the layout of Common Voice: links or copies, segments as flac."""

import contextlib
import csv
import dataclasses
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import soundfile

from experiments.data.importing.naming import clip_names
from experiments.data.importing.recording import Found, Recording
from experiments.data.importing.tree import FOREIGN_DETAIL, FOREIGN_SUFFIXES
from experiments.process.files import write_json
from w2v_jax.data import audio, git_lfs
from w2v_jax.data.release.assignment import PRECEDENCE, UNION
from w2v_jax.errors import UserError

COLUMNS = ("client_id", "path", "sentence")
SLACK_SECONDS = 0.02  # a segment that ends this close to the ends of its file is the whole file
FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
# How segments of a subtype of libsndfile's are read and written; all others are lossy.
Exactly = tuple[Literal["int16", "int32", "float32", "float64"], str]
SAME_16: Exactly = ("int16", "PCM_16")
SAME_24: Exactly = ("int32", "PCM_24")
SAME_FLOAT: Exactly = ("float32", "FLOAT")
EXACT_SUBTYPES: dict[str, Exactly] = {
    "PCM_16": SAME_16, "PCM_S8": SAME_16, "PCM_U8": SAME_16, "ULAW": SAME_16, "ALAW": SAME_16,
    "PCM_24": SAME_24, "PCM_32": SAME_24, "FLOAT": SAME_FLOAT, "DOUBLE": SAME_FLOAT,
}  # fmt: skip
THREADS = 8


class Sound(NamedTuple):
    """The header of an audio file."""

    frames: int
    rate_hz: int
    channels: int
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.rate_hz


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip to be written.

    Attributes:
        recording: of the source.
        sound: the header of its file.
        name: of the clip's file.
        frames: first frame and the one after the last, at the file's rate; None for a whole file.
    """

    recording: Recording
    sound: Sound
    name: str = ""
    frames: tuple[int, int] | None = None

    @property
    def seconds(self) -> float:
        first, end = self.frames or (0, self.sound.frames)
        return (end - first) / self.sound.rate_hz


class Unusable(Exception):
    """An audio file or a segment that cannot be used; arguments: reason, detail."""


def measure(found: Found) -> list[Clip]:
    """Read the headers of all audio files; unusable recordings are left out of `found` and listed in it."""
    paths = list(dict.fromkeys(recording.path for recording in found.recordings))
    with ThreadPoolExecutor(THREADS) as pool:
        sounds = dict(zip(paths, pool.map(_sound, paths), strict=True))
    clips: list[Clip] = []
    best: dict[tuple[Any, ...], str] = {}
    order = sorted(found.recordings, key=lambda recording: PRECEDENCE.index(recording.split or UNION))
    kept: set[int] = set()
    for recording in order:
        key = (recording.path, recording.start, recording.end, recording.channel)
        if key not in best:
            best[key] = recording.split
            kept.add(id(recording))
        elif best[key] == recording.split:
            found.leave_out(recording.name, "duplicate", "the source lists the same audio before")
        else:
            found.leave_out(recording.name, "in two splits", f"also in {best[key]}, which keeps it")
    for recording in found.recordings:
        if id(recording) not in kept:
            continue
        try:
            sound = sounds[recording.path]
            if isinstance(sound, Unusable):
                raise sound
            clips.append(Clip(recording=recording, sound=sound, frames=_frames(recording, sound)))
        except Unusable as unusable:
            found.leave_out(recording.name, *unusable.args)
    suffixes = [_suffix(clip) for clip in clips]
    names = clip_names([clip.recording for clip in clips], suffixes)
    return [dataclasses.replace(clip, name=name) for clip, name in zip(clips, names, strict=True)]


def _sound(path: Path) -> Sound | Unusable:
    """Read an audio file's header."""
    try:
        with path.open("rb") as file:
            start = file.read(len(git_lfs.POINTER))
        if not start:
            return Unusable("empty", "the file has no bytes")
        if start == git_lfs.POINTER:
            return Unusable("Git LFS pointer", git_lfs.ADVICE)
        with path.open("rb") as opened, soundfile.SoundFile(opened) as file:
            if file.format not in audio.CHECKED_FORMATS:
                detail = f"a {file.format} file: convert it to wav, flac, mp3 or ogg"
                return Unusable(f"{file.format} file", detail)
            if not audio.MIN_RATE_HZ <= file.samplerate <= audio.MAX_RATE_HZ:
                return Unusable("undecodable", f"a rate of {file.samplerate} Hz")
            if not file.frames:
                return Unusable("empty", "no samples")
            return Sound(file.frames, file.samplerate, file.channels, file.subtype)
    except (OSError, RuntimeError, ValueError) as error:  # soundfile's errors are RuntimeErrors
        if (suffix := path.suffix.lower()) in FOREIGN_SUFFIXES:
            return Unusable(f"{suffix} file", FOREIGN_DETAIL.format(suffix=suffix))
        return Unusable("undecodable", str(error).splitlines()[0].rpartition(": ")[2] or type(error).__name__)


def _frames(recording: Recording, sound: Sound) -> tuple[int, int] | None:
    """Find the frames of a segment; None for a whole file.

    Raises:
        Unusable: the segment is outside its file, or too long.
    """
    start, end = recording.start or 0.0, sound.seconds if recording.end is None else recording.end
    if end == math.inf:
        end = sound.seconds
    if not 0 <= start < min(end, sound.seconds):
        raise Unusable("bad segment", f"{start:g} to {end:g} s of a file of {sound.seconds:.3f} s")
    if recording.channel is not None and not 0 <= recording.channel < sound.channels:
        raise Unusable("bad segment", f"channel {recording.channel} of a file with {sound.channels} channels")
    if min(end, sound.seconds) - start > audio.MAX_SECONDS:
        seconds = f"{end - start:.0f} s, at most {audio.MAX_SECONDS:g} s"
        raise Unusable("too long", f"{seconds}: cut it, for example by a table of segments")
    whole = start <= SLACK_SECONDS and end >= sound.seconds - SLACK_SECONDS
    if whole and (recording.channel is None or sound.channels == 1):
        return None
    return round(start * sound.rate_hz), min(round(end * sound.rate_hz), sound.frames)


def _suffix(clip: Clip) -> str:
    if clip.frames is None:
        return clip.recording.path.suffix.lower()
    return ".wav" if clip.sound.subtype in FLOAT_SUBTYPES else ".flac"


@contextlib.contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """Make a folder that appears as `out` when the block ends, or not at all where it fails.

    Raises:
        UserError: `out` is no folder that `check_free` allows.
    """
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    partial.mkdir()
    try:
        yield partial
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(out: Path) -> None:
    """Check that a folder can be written without harm to what is there.

    Raises:
        UserError: `out` exists and is not an empty folder, is a link or the current folder, or is in a file.
    """
    if out.is_symlink():
        raise UserError(f"--out: {out} is a link: name the folder {out.resolve()} itself, or another one")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} exists already and is not an empty folder: choose another --out")
    if out.resolve() == Path.cwd():  # it would be replaced, and the shell left in a folder that is gone
        raise UserError(f"--out: {out} is the current folder: name a folder in it, such as {out / 'corpus'}")
    above = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise UserError(f"--out: {above} is not a folder, so {out} cannot be made: choose another --out")


def write(locale: Path, clips: Sequence[Clip], *, copy: bool) -> list[str]:
    """Write the clips and the tables.

    Args:
        locale: the locale's folder, which is made.
        clips: from `measure`.
        copy: whether audio files are copied; otherwise clips are links to them. Segments are always written.

    Returns:
        The names of the splits that have a table.

    Raises:
        UserError: an audio file cannot be read while it is cut.
    """
    folder = locale / "clips"
    folder.mkdir(parents=True)

    def make(clip: Clip) -> None:
        if clip.frames is not None:
            _cut(clip, folder / clip.name)
        elif copy:
            shutil.copyfile(clip.recording.path, folder / clip.name)
        else:
            (folder / clip.name).symlink_to(clip.recording.path.resolve())

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(make, clips))
    splits = [split for split in ("train", "dev", "test") if any(c.recording.split == split for c in clips)]
    for split in (*splits, UNION):
        with (locale / f"{split}.tsv").open("w", encoding="utf-8", newline="") as lines:
            table = csv.writer(
                lines, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
            )
            table.writerow(COLUMNS)
            table.writerows(
                (clip.recording.speaker, clip.name, clip.recording.text)
                for clip in clips
                if split in (UNION, clip.recording.split)
            )
    return splits


def _cut(clip: Clip, target: Path) -> None:
    """Write a segment at its file's own rate: PCM up to 24 bits and floats exactly, all else as 16 bits."""
    assert clip.frames is not None
    first, end = clip.frames
    subtype = clip.sound.subtype
    read_as, written_as = EXACT_SUBTYPES.get(subtype, ("float64", "PCM_16"))
    try:
        with clip.recording.path.open("rb") as opened, soundfile.SoundFile(opened) as file:
            file.seek(first)
            samples = file.read(end - first, dtype=read_as, always_2d=True)
        if clip.recording.channel is not None:
            samples = samples[:, clip.recording.channel]
        if read_as == "float64":  # decoders of lossy formats may go beyond full scale
            samples = np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
        soundfile.write(target, samples, clip.sound.rate_hz, subtype=written_as)
    except (OSError, RuntimeError) as error:
        at = f"{first / clip.sound.rate_hz:g} s"
        raise UserError(f"{clip.recording.path} cannot be cut at {at}: {error}") from error


def write_record(path: Path, found: Found, clips: Sequence[Clip], facts: dict[str, Any]) -> None:
    """Write import.json: facts, everything that was left out, and the origin of each clip."""
    write_json(
        path,
        facts
        | {
            "notes": found.notes,
            "left_out": [dataclasses.asdict(skip) for skip in found.left_out],
            "clips": {
                clip.name: {
                    "path": str(clip.recording.path.resolve()),
                    "frames": clip.frames,
                    "channel": clip.recording.channel,
                }
                for clip in clips
            },
        },
    )
