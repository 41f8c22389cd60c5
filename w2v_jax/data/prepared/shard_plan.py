"""Which clip of a release goes into which split and shard, known before anything is decoded."""

import dataclasses

from w2v_jax.data.prepared.releases import Release
from w2v_jax.data.tables import ClipRow, SkippedClip, lists_nothing, parse_table

# On disk splits are disjoint; the release's `validated` is all of them together.
SPLITS = ("train", "dev", "test", "rest")
CLIPS_PER_SHARD = 1024


@dataclasses.dataclass(frozen=True)
class Shard:
    """A run of clips of one split, in the release's order."""

    split: str
    number: int
    rows: list[ClipRow]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What goes where, known before anything is decoded."""

    shards: list[Shard]
    skipped: list[SkippedClip]  # rows and files that are no clips of any shard

    @property
    def num_clips(self) -> int:
        return sum(len(shard.rows) for shard in self.shards)


def plan(release: Release, clips_per_shard: int = CLIPS_PER_SHARD) -> Plan:
    """Assign the release's clips to splits and shards, in the order in which they will be read.

    A clip of several splits stays in the one that evaluation needs most: test, then dev, then train.

    Raises:
        CorpusError: a table that cannot be read.
    """
    skipped: list[SkippedClip] = []
    rows: dict[str, ClipRow] = {}
    split_of: dict[str, str] = {}
    damaged: dict[bytes, str] = {}  # fields of rows that cannot be read: some is a clip's name
    for split in ("test", "dev", "train", "rest"):
        name = "validated.tsv" if split == "rest" else f"{split}.tsv"
        if name not in release.tables:
            continue
        if split != "rest" and lists_nothing(release.tables[name]):
            continue
        table = parse_table(release.tables[name], name)
        skipped += table.skipped
        if split in ("test", "dev"):
            damaged |= {field: name for line in table.unreadable for field in line.split(b"\t")}
        for row in table.rows:
            if row.path not in split_of:
                rows[row.path], split_of[row.path] = row, split
            elif split != "rest":
                detail = f"also in {split_of[row.path]}.tsv, which keeps it"
                skipped.append(SkippedClip(path=row.path, reason="in two splits", detail=detail))
    # Else a clip that is meant for evaluation would be trained on as one of the rest.
    for path in [path for path in rows if path.encode() in damaged]:
        detail = f"in a row of {damaged[path.encode()]} that cannot be read"
        skipped.append(SkippedClip(path=path, reason="malformed row", detail=detail))
        del rows[path], split_of[path]
    left_out = {skip.path for skip in skipped}
    there = set(release.clip_names)
    missing = sorted(path for path in rows if path not in there)
    skipped += [
        SkippedClip(path=path, reason="missing", detail="no such file in clips (links do not count)")
        for path in missing
    ]
    skipped += [
        SkippedClip(path=path, reason="duplicate", detail="twice in the archive; the first one counts")
        for path in release.repeated
        if path in rows
    ]
    skipped += [
        SkippedClip(path=name, reason="not listed", detail="in clips, but in no table that is used")
        for name in release.clip_names
        if name not in rows and name not in left_out
    ]
    by_split: dict[str, list[ClipRow]] = {split: [] for split in SPLITS}
    for name in release.clip_names:
        if name in rows:
            by_split[split_of[name]].append(rows[name])
    shards = [
        Shard(split, start // clips_per_shard, members[start : start + clips_per_shard])
        for split, members in by_split.items()
        for start in range(0, len(members), clips_per_shard)
    ]
    return Plan(shards, skipped)
