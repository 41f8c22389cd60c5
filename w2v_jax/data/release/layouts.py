"""Find the locale in a folder or an archive, and name a layout that cannot be read."""

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from w2v_jax.errors import CorpusError

SPLITS = ("train", "dev", "test")
TABLES = ("validated", *SPLITS)  # all clips that are used are listed in these
UNVALIDATED = ("other", "invalidated")
DEEPEST = 3  # parts of a table's path below the folder that is named: cv-corpus-*/<locale>/validated.tsv


def choose(
    files: Collection[str], locale: str | None, source: Path, *, split: str = "validated", advice: str
) -> str:
    """Choose the locale's folder.

    Args:
        files: paths of all tables (.tsv, .csv) below `source`, with slashes.
        locale: the name that it must have; None for the only one.
        source: what is searched, for messages.
        split: a table of this name will do, besides those of `TABLES`.
        advice: what to do where there are several.

    Returns:
        Its path below `source`; "." for `source` itself.

    Raises:
        CorpusError: none, several, another one, or a layout that cannot be read.
    """
    tables = {f"{name}.tsv" for name in (*TABLES, split)}
    found = sorted({str(PurePosixPath(file).parent) for file in files if PurePosixPath(file).name in tables})
    if mirrored := [prefix for prefix in found if PurePosixPath(prefix).parent.name == "transcript"]:
        raise CorpusError(
            f"{source} has the layout of the Hugging Face mirror ({mirrored[0]}): unpack the archives of "
            "audio/ into a folder `clips` and copy the tables of transcript/<locale> beside it"
        )
    if not found:
        raise CorpusError(f"{source} {_what_it_is(files)}")
    named = {PurePosixPath(prefix).name or source.resolve().name: prefix for prefix in found}
    if "." in found:
        named = {source.resolve().name if source.is_dir() else source.name.partition(".")[0]: "."}
    elif len(named) < len(found):
        raise CorpusError(f"{source} holds several releases ({', '.join(found)}): name one of them")
    there = ", ".join(sorted(named))
    if locale is not None and locale not in named:
        raise CorpusError(f"{source} has no locale {locale}: choose --locale from {there}")
    if locale is None and len(named) > 1:
        raise CorpusError(f"{source} holds several locales ({there}): {advice}")
    return named[locale] if locale is not None else next(iter(named.values()))


def _what_it_is(files: Collection[str]) -> str:
    """Say what is known about a layout without any of the tables, and what to do."""
    names = {PurePosixPath(file).name for file in files}
    if "cv-valid-train.csv" in names:
        return (
            "is release 1 of Common Voice (cv-valid-train.csv), which does not name its speakers: get a "
            "later release"
        )
    if spontaneous := sorted(name for name in names if name.startswith(("ss-corpus", "sps-corpus"))):
        return (
            f"is a release of spontaneous speech ({spontaneous[0]}): w2v-jax data import FOLDER --table "
            f"{spontaneous[0]} --out DIR makes a corpus of it"
        )
    if unvalidated := [f"{name}.tsv" for name in UNVALIDATED if f"{name}.tsv" in names]:
        return (
            f"has no validated.tsv, only {' and '.join(unvalidated)} (a delta release?): nothing in it is "
            f"validated. `--split {unvalidated[0][:-4]}` of pretrain and data describe reads it anyway; "
            f"to prepare it, copy {unvalidated[0]} to validated.tsv"
        )
    if renamed := sorted(name for name in names if name in {f"{table}.csv" for table in TABLES}):
        return f"has {renamed[0]}: rename it to {renamed[0].removesuffix('.csv')}.tsv (commas are read)"
    return (
        "has no validated.tsv: expected the layout of Common Voice (cv-corpus-*/<locale>/validated.tsv and "
        "clips/); w2v-jax data import FOLDER --out DIR makes it of any folder of recordings"
    )
