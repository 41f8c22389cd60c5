"""Assign the clips of a release to splits: one rule for folders and for prepared data."""

import dataclasses
import re

from w2v_jax.data.release.base import Release
from w2v_jax.data.release.clip_names import ClipNames
from w2v_jax.data.tables import ChangedClip, ClipRow, SkippedClip, Table, lists_nothing, parse_table
from w2v_jax.errors import CorpusError

REST = "rest"  # validated, and in none of train, dev and test
UNION = "validated"
# A clip of several splits stays in the one that evaluation needs most.
PRECEDENCE = ("test", "dev", "train", UNION)
SEPARATORS = re.compile(rb'[\t,;|\r\n"]+')


@dataclasses.dataclass(frozen=True)
class Assignment:
    """Clips by split.

    Attributes:
        rows: the row of every clip that a table lists and whose file is there, by the file's name, which is
            also its `path`; first those of validated.tsv in its order, then the others.
        split_of: train, dev, test or rest, by the file's name.
        order: names in the order of train.tsv, dev.tsv and test.tsv.
        skipped: rows and files that are no clips of any split.
        changed: clips whose file has another name than the table says.
    """

    rows: dict[str, ClipRow]
    split_of: dict[str, str]
    order: dict[str, list[str]]
    skipped: list[SkippedClip]
    changed: list[ChangedClip]

    @property
    def splits(self) -> list[str]:
        """List the splits among train, dev and test that have clips."""
        held = set(self.split_of.values())
        return [split for split in ("train", "dev", "test") if split in held]

    def select(self, split: str) -> list[ClipRow]:
        """Give the rows of a split in its table's order; `validated` is all clips together."""
        if split == UNION:
            return list(self.rows.values())
        names = self.order.get(split, [])
        return [self.rows[name] for name in names if self.split_of.get(name) == split]


def assign(release: Release, *, list_unused: bool = True) -> Assignment:
    """Assign the release's clips to splits, each to one.

    A table that cannot be read is left out and listed; the clips that it names are then in no split, lest
    evaluation clips be trained on.

    Args:
        release: tables and names of clips.
        list_unused: whether files that no table lists are listed as skipped.

    Raises:
        CorpusError: no table can be read, or none lists a clip.
    """
    skipped: list[SkippedClip] = []
    tables, unreadable = _read_tables(release, skipped)
    names = ClipNames(release.clip_names)
    found: dict[str, tuple[ClipRow, str]] = {}
    order: dict[str, dict[str, None]] = {}  # ordered sets of names
    changed: list[ChangedClip] = []
    missing: dict[str, SkippedClip] = {}
    for split in (split for split in PRECEDENCE if split in tables):
        place = REST if split == UNION else split
        order[split] = {}
        for row in tables[split].rows:
            match = names.find(row.path)
            if match is None:
                missing.setdefault(row.path, _missing(row.path, place, names))
                continue
            name, difference = match
            if name in order[split]:
                detail = f"{row.path} in {split}.tsv is the same file as a row before"
                skipped.append(SkippedClip(path=name, reason="duplicate", detail=detail, split=place))
                continue
            order[split][name] = None
            if name not in found:
                found[name] = (row if name == row.path else dataclasses.replace(row, path=name)), place
                if difference:
                    changed.append(_other_name(name, row.path, difference, place))
            elif split != UNION and found[name][1] != place:
                detail = f"also in {found[name][1]}.tsv, which keeps it"
                skipped.append(SkippedClip(path=name, reason="in two splits", detail=detail, split=place))
    skipped += _take_out_damaged(found, unreadable, names)
    skipped += [missing[path] for path in sorted(missing)]
    if list_unused:
        skipped += _unused_files(release, found, skipped)
    union = dict.fromkeys(name for name in (*order.get(UNION, ()), *found) if name in found)
    return Assignment(
        rows={name: found[name][0] for name in union},
        split_of={name: found[name][1] for name in union},
        order={split: list(held) for split, held in order.items()},
        skipped=skipped,
        changed=changed,
    )


def _read_tables(release: Release, skipped: list[SkippedClip]) -> tuple[dict[str, Table], dict[bytes, str]]:
    """Read tables by split, and collect fields of unreadable rows of dev.tsv and test.tsv."""
    tables: dict[str, Table] = {}
    unreadable: dict[bytes, str] = {}
    errors: list[CorpusError] = []
    for split in PRECEDENCE:
        name = f"{split}.tsv"
        data = release.tables.get(name)
        if data is None:
            continue
        place = REST if split == UNION else split
        try:
            if lists_nothing(data, name):
                continue
            tables[split] = parse_table(data, name)
            lines = tables[split].unreadable
            skipped += [dataclasses.replace(skip, split=place) for skip in tables[split].skipped]
        except CorpusError as error:
            errors.append(error)
            skipped.append(SkippedClip(path=name, reason="unreadable table", detail=str(error), split=place))
            lines = [data]
        if split in ("dev", "test"):
            fields = (field for line in lines for field in (*line.split(b"\t"), *SEPARATORS.split(line)))
            unreadable |= dict.fromkeys(fields, name)
    if not tables:
        if errors:
            raise errors[-1]
        raise CorpusError(f"{', '.join(sorted(release.tables)) or 'the release'}: no clips listed")
    return tables, unreadable


def _missing(path: str, split: str, names: ClipNames) -> SkippedClip:
    near = names.near(path)
    detail = (
        "no such file in clips, or a link that leads nowhere"
        if near is None
        else f"not in clips, but {near} is"
    )
    return SkippedClip(path=path, reason="missing", detail=detail, split=split)


def _other_name(name: str, path: str, difference: str, split: str) -> ChangedClip:
    return ChangedClip(
        path=name, reason="other name", detail=f"{path} in the table: {difference}", split=split
    )


def _take_out_damaged(
    found: dict[str, tuple[ClipRow, str]], unreadable: dict[bytes, str], names: ClipNames
) -> list[SkippedClip]:
    """Take out clips that a damaged row of dev.tsv or test.tsv names: they may be meant for evaluation."""
    taken = []
    for field, table in unreadable.items():
        if field.isdigit():
            continue  # a number of votes, not a name without its suffix
        match = names.find(field.decode(errors="replace").replace("\\", "/").rpartition("/")[2])
        if match is not None and match[0] in found:
            _, split = found.pop(match[0])
            detail = f"in a row of {table} that cannot be read"
            taken.append(SkippedClip(path=match[0], reason="malformed row", detail=detail, split=split))
    return taken


def _unused_files(
    release: Release, found: dict[str, tuple[ClipRow, str]], skipped: list[SkippedClip]
) -> list[SkippedClip]:
    """List the files that an archive holds twice, and those that no table lists."""
    left_out = {skip.path for skip in skipped}
    repeated = [
        SkippedClip(path=path, reason="duplicate", detail="twice in the archive; the first one counts")
        for path in release.repeated
        if path in found
    ]
    return repeated + [
        SkippedClip(path=name, reason="not listed", detail="in clips, but in no table that is used")
        for name in release.clip_names
        if name not in found and name not in left_out
    ]


def read_other(data: bytes, name: str, clip_names: list[str]) -> Assignment:
    """Read a table that is not one of the release's splits, such as other.tsv or a table of the user.

    Raises:
        CorpusError: as `parse_table`.
    """
    table, names, split = parse_table(data, name), ClipNames(clip_names), name.removesuffix(".tsv")
    rows: dict[str, ClipRow] = {}
    skipped = [dataclasses.replace(skip, split=split) for skip in table.skipped]
    changed = []
    for row in table.rows:
        match = names.find(row.path)
        if match is None:
            skipped.append(_missing(row.path, split, names))
            continue
        rows[match[0]] = dataclasses.replace(row, path=match[0])
        if match[1]:
            changed.append(_other_name(match[0], row.path, match[1], split))
    return Assignment(rows, dict.fromkeys(rows, split), {split: list(rows)}, skipped, changed)
