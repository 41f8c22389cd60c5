"""Corpora as commands name them: a folder, a prepared data set, or the synthetic one made on the spot."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.options.spelling import nearest
from w2v_jax.data.common_voice import Corpus, FolderCorpus
from w2v_jax.data.prepared.corpus import PreparedCorpus, is_prepared
from w2v_jax.data.release.assignment import UNION
from w2v_jax.data.release.folder import FolderRelease
from w2v_jax.data.release.layouts import DEEPEST
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.errors import CorpusError

Source = FolderCorpus | PreparedCorpus


@contextmanager
def opened(data: str | None, synthetic: SyntheticConfig, split: str = UNION) -> Iterator[Source]:
    """Open `data`, or where it is None a synthetic corpus that is written on the spot and removed again.

    Args:
        data: a Common Voice folder or a prepared data set, here or under W2V_JAX_CORPORA.
        synthetic: what to write where `data` is None.
        split: the split that will be loaded.

    Raises:
        CorpusError: no such corpus, or none with this split.
    """
    if data is not None:
        folder = find(data)
        check_split(folder, split)
        yield open_folder(folder, split)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), synthetic)
        yield FolderCorpus(folder)


def open_folder(folder: Path, split: str = UNION) -> Source:
    """Open a Common Voice folder or a prepared data set.

    Raises:
        CorpusError: as PreparedCorpus and FolderCorpus.
    """
    return PreparedCorpus(folder) if is_prepared(folder) else FolderCorpus(folder, split)


def load(data: str | None, split: str, *, min_samples: int, seed: int, clients: int = 1) -> Corpus:
    """Load `data`, or where it is None a synthetic corpus of this seed with speakers for all clients.

    Raises:
        CorpusError: no such corpus or split, or no clip that can be used.
    """
    with opened(data, synthetic_for(seed, clients), split) as source:
        return source.load(split, min_samples=min_samples)


def synthetic_for(seed: int, clients: int) -> SyntheticConfig:
    """Size the synthetic corpus for a number of clients, with more speakers to hold out."""
    return SyntheticConfig(seed=seed, speakers=max(SyntheticConfig.speakers, round(1.3 * clients)))


def listed(data: str, split: str, name: str) -> list[str]:
    """Give a column of a split's table ("client_id", "sentence"), without reading any audio.

    Raises:
        CorpusError: no such corpus, or it has no such split.
    """
    return open_folder(find(data), split).listed(split, name)


def check_transcripts(data: str) -> None:
    """Check by the tables alone that there are transcripts, before hours of work that would need them.

    Raises:
        CorpusError: no such corpus, or no transcript in train, or in validated where there is no train.
    """
    source = open_folder(find(data))
    base = "train" if "train" in source.splits else UNION  # as fine-tuning chooses
    if any(sentence.strip() for sentence in source.listed(base, "sentence")):
        return
    raise CorpusError(f"{find(data)} has no transcripts: fine-tuning needs the `sentence` column")


def locale_of(data: str) -> str:
    """Find the locale of a corpus, such as tr; empty where there is no such corpus or it does not tell."""
    try:
        folder = find(data)
        if is_prepared(folder):
            return PreparedCorpus(folder).manifest.get("locale", "")
        return FolderRelease(folder).locale
    except CorpusError:
        return ""


def find(data: str, option: str = "--data") -> Path:
    """Find the folder that `--data`, or another option, names.

    Raises:
        CorpusError: there is none, here or under W2V_JAX_CORPORA.
    """
    here, root = Path(data), os.environ.get("W2V_JAX_CORPORA")
    if here.is_dir():
        return here
    if root and (Path(root) / data).is_dir():
        return Path(root) / data
    raise CorpusError(
        f"{option}: no such folder: {data} (expected a Common Voice locale: clips/, validated.tsv)"
    )


def check_split(folder: Path, split: str) -> None:
    """Check that a corpus has the split that `--split` names.

    Raises:
        CorpusError: it has others.
    """
    if is_prepared(folder):
        there = ["validated", *PreparedCorpus(folder).splits]
    else:
        there = sorted(
            {table.stem for depth in range(DEEPEST) for table in folder.glob("*/" * depth + "*.tsv")}
        )
    if split != UNION and there and split not in there:  # validated is the default: nobody misspelt it
        raise CorpusError(f"{nearest(split, there, '--split')} in {folder}")
