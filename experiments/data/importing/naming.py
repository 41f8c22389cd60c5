"""Names of speakers and of clips."""

import dataclasses
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from experiments.data.importing import folders
from experiments.data.importing.recording import Found, Recording, plain
from experiments.data.importing.tree import without_audio_suffix

LONGEST_BYTES = 180  # of a clip's name without its suffix; file systems allow 255
UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]+")
ONE_SPEAKER = "one"
FILE_SPEAKERS = "file"
FOLDER_SPEAKERS = "folder"


def assign_speakers(found: Found, rule: str | None) -> None:
    """Name speakers by the user's rule, and leave out the recordings without one.

    Args:
        found: the content of the source, which is changed.
        rule: "folder", "one" (all recordings have one speaker), "file" (each recording has its own) or a
            regular expression over names; None keeps the speakers that the source names.
    """
    if rule is not None:
        speakers = _by_rule([recording.name for recording in found.recordings], rule, found)
        found.recordings = [
            dataclasses.replace(recording, speaker=speakers[recording.name]) for recording in found.recordings
        ]
    named: list[Recording] = []
    for recording in found.recordings:
        if speaker := plain(recording.speaker):
            named.append(dataclasses.replace(recording, speaker=speaker, text=plain(recording.text)))
        else:
            found.leave_out(
                recording.name, "without a speaker", "no speaker is named; --speaker gives a rule"
            )
    found.recordings = named


def _by_rule(names: list[str], rule: str, found: Found) -> dict[str, str]:
    if rule == FOLDER_SPEAKERS:
        found.speakers_from = "names of folders"
        return folders.by_folder(names, found)
    if rule == ONE_SPEAKER:
        found.speakers_from = "--speaker one: all recordings count as one person's"
        return dict.fromkeys(names, "speaker")
    if rule == FILE_SPEAKERS:
        found.speakers_from = "--speaker file: each recording counts as another person's"
        return {name: without_audio_suffix(name) for name in names}
    found.speakers_from = f"--speaker {rule}"
    return folders.by_pattern(names, rule)


def prefix_hint(names: Sequence[str]) -> str:
    """Name the option that takes speakers from the beginnings of file names, where that is likely.

    Beginnings are likely to be speakers where they end at the first - or _ and recur.
    """
    stems = [without_audio_suffix(PurePosixPath(name).name) for name in names]
    starts = Counter(match[1] for stem in stems if (match := re.match(r"([^-_]+)[-_]", stem)))
    if sum(starts.values()) < len(stems) or not 2 <= len(starts) <= len(stems) / 2:
        return ""
    examples = ", ".join(sorted(starts)[:3])
    option = "--speaker '([^/_-]+)[_-][^/]*$'"
    return f"; file names begin with {len(starts)} words ({examples}), which {option} takes"


def clip_names(recordings: Sequence[Recording], suffixes: Sequence[str]) -> list[str]:
    """Name the clips: each name is unique, also in another case, and holds no folder.

    A clip is called as its recording, without folders where that is unique and else with them.

    Args:
        recordings: of the source.
        suffixes: of the clips' files, with the dot.
    """
    short = [_safe(without_audio_suffix(PurePosixPath(item.name).name)) for item in recordings]
    often = Counter(_key(name) for name in short)
    names: list[str] = []
    taken: set[str] = set()
    for item, stem, suffix in zip(recordings, short, suffixes, strict=True):
        name = stem if often[_key(stem)] == 1 else _safe(without_audio_suffix(item.name).replace("/", "-"))
        unique, number = name, 1
        while _key(unique) in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(_key(unique))
        names.append(unique + suffix)
    return names


def _safe(name: str) -> str:
    name = UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip() or "clip"
    name = "_" + name[1:] if name.startswith(".") else name
    data = name.encode("utf-8", "replace")
    if len(data) <= LONGEST_BYTES and data.decode() == name:
        return name
    digest = hashlib.sha1(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return f"{data[: LONGEST_BYTES - 20].decode(errors='ignore')}-{digest}"


def _key(name: str) -> str:
    return name.casefold()
