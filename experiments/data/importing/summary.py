"""The lines by which `data import` says what it understood and what it wrote."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.data.importing.naming import prefix_hint
from experiments.data.importing.recording import Found
from experiments.data.importing.writing import Clip
from experiments.process.provenance import record_provenance
from experiments.report.units import by_reason
from w2v_jax.data.tables import counts

SPLITS = ("train", "dev", "test")
SPEAKERS_TOLD = 3
DEFAULT_CLIENTS = 10  # of pretrain, which holds out at least one speaker more


def lines(found: Found, clips: Sequence[Clip]) -> list[str]:
    """Say what a source holds: recordings, speakers, hours, transcripts, splits, and what is left out.

    Args:
        found: the content of the source.
        clips: the recordings that can be used.
    """
    cut = sum(clip.frames is not None for clip in clips)
    files = len({clip.recording.path for clip in clips})
    segments = f" ({cut} segments to cut from {files} files)" if cut else ""
    speakers = list(dict.fromkeys(clip.recording.speaker for clip in clips))
    examples = ", ".join([*speakers[:SPEAKERS_TOLD], *(["..."] if len(speakers) > SPEAKERS_TOLD else [])])
    transcribed = sum(bool(clip.recording.text) for clip in clips)
    left_out = counts(found.left_out)
    shown = {skip.reason: skip for skip in reversed(found.left_out)}
    return [
        f"recordings: {len(clips)}{segments}, {sum(clip.seconds for clip in clips) / 3600:.3g} h",
        f"speakers: {len(speakers)}{f' ({examples})' if speakers else ''}, from {found.speakers_from}",
        f"transcripts: {transcribed} of {len(clips)} recordings, from {found.texts_from}",
        f"splits: {_splits(clips)}",
        *([f"folders taken as splits: {_split_folders(found)}"] if found.split_folders else []),
        f"left out: {by_reason(left_out, 'nothing')}",
        *[f"  {reason}: {skip.path} ({skip.detail})" for reason, skip in shown.items()],
        *[f"note: {note}" for note in found.notes],
    ]


def _splits(clips: Sequence[Clip]) -> str:
    held = Counter(clip.recording.split for clip in clips)
    named = [f"{split} {held[split]}" for split in SPLITS if held[split]]
    if not named:
        return "none in the source: validated.tsv alone is written, and finetune makes dev and test"
    missing = " and ".join(split for split in SPLITS if not held[split])
    rest = f", in none of them {held['']}" if held[""] else ""
    return f"{', '.join(named)}{rest}" + (f"; finetune makes {missing}" if missing else "")


def _split_folders(found: Found) -> str:
    folders = sorted(found.split_folders.items())
    return ", ".join(name if name == split else f"{name} ({split})" for name, split in folders)


def nothing(found: Found, names: Sequence[str]) -> str:
    """Say that no recording can be imported, and which option would help.

    Args:
        found: the content of the source.
        names: names of all recordings that it lists.
    """
    reasons = counts(found.left_out)
    if (unknown := reasons.get("without a speaker", 0)) and unknown == len(names):
        return (
            f"no speaker is known for any of the {unknown} recordings. Give --speaker one if all are "
            "one person's, --speaker file if each is another person's, --speaker folder, or --speaker REGEX"
            f"{prefix_hint(names)}"
        )
    return f"none of the {len(names)} recordings can be used: {by_reason(reasons)}"


def facts(options: Mapping[str, Any], layout: str, found: Found, clips: Sequence[Clip]) -> dict[str, Any]:
    """Return the facts of import.json: the options, counts, and how it was made."""
    return {
        "options": {name: str(v) if isinstance(v, Path) else v for name, v in options.items()},
        "layout": layout,
        "recordings": len(clips),
        "seconds": sum(clip.seconds for clip in clips),
        "speakers": len({clip.recording.speaker for clip in clips}),
        "transcripts": sum(bool(clip.recording.text) for clip in clips),
        "segments": sum(clip.frames is not None for clip in clips),
        "splits": dict(Counter(clip.recording.split for clip in clips)),
        "left_out_by_reason": counts(found.left_out),
        "provenance": record_provenance("data import"),
    }


def written(out: Path, locale: str, splits: Sequence[str], clips: Sequence[Clip], *, copy: bool) -> list[str]:
    """Say what was written, and with which command to go on.

    Args:
        out: the folder that was written.
        locale: the folder of the language in it.
        splits: those that have a table.
        clips: in the order of validated.tsv.
        copy: whether audio files were copied.
    """
    cut = sum(clip.frames is not None for clip in clips)
    how = "copied" if copy else "linked: the source must stay where it is, or give --copy"
    parts = [f"{len(clips) - cut} clips {how}"] * (cut < len(clips)) + [f"{cut} segments cut"] * (cut > 0)
    tables = ", ".join(f"{split}.tsv" for split in ("validated", *splits))
    speakers = len({clip.recording.speaker for clip in clips})
    few = " --partition iid --heldout-speakers 0" if speakers == 1 else f" --clients {speakers - 1}"
    return [
        f"written: {out / locale} ({tables}; {'; '.join(parts)})",
        f"written: {out / 'import.json'} (the origin of each clip, and everything that was left out)",
        f"next: w2v-jax data describe {out}, and w2v-jax pretrain --data {out}"
        f"{few if speakers <= DEFAULT_CLIENTS else ''}",
    ]
