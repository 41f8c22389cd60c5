"""Plan the split and the shard of each clip of a release before anything is decoded."""

import dataclasses

from w2v_jax.data.release.assignment import assign
from w2v_jax.data.release.base import Release
from w2v_jax.data.tables import ChangedClip, ClipRow, SkippedClip

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
    """All shards.

    Attributes:
        shards: in the order of `SPLITS`.
        skipped: rows and files that are no clips of any shard.
        changed: clips whose file has another name than the table says.
    """

    shards: list[Shard]
    skipped: list[SkippedClip]
    changed: list[ChangedClip]

    @property
    def num_clips(self) -> int:
        return sum(len(shard.rows) for shard in self.shards)


def plan(release: Release, clips_per_shard: int = CLIPS_PER_SHARD) -> Plan:
    """Assign the release's clips to splits and shards, in the order in which they will be read.

    Raises:
        CorpusError: as `assign`.
    """
    assigned = assign(release)
    by_split: dict[str, list[ClipRow]] = {split: [] for split in SPLITS}
    for name in release.clip_names:
        if name in assigned.rows:
            by_split[assigned.split_of[name]].append(assigned.rows[name])
    shards = [
        Shard(split, start // clips_per_shard, members[start : start + clips_per_shard])
        for split, members in by_split.items()
        for start in range(0, len(members), clips_per_shard)
    ]
    return Plan(shards, assigned.skipped, assigned.changed)
