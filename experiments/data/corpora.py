"""Corpora as commands name them: a folder, or the synthetic one made on the spot."""

import os
import tempfile
from pathlib import Path

from experiments.options.spelling import nearest
from w2v_jax.data.common_voice import Corpus, load_corpus, locate, read_table
from w2v_jax.data.prepared.corpus import PreparedClips, PreparedCorpus, is_prepared, load_prepared
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.data.tables import lists_nothing
from w2v_jax.errors import CorpusError


def load(data: str | None, split: str, *, min_samples: int, seed: int, clients: int = 1) -> Corpus:
    """Load `data`, or where it is None a synthetic corpus of this seed with speakers for all clients.

    Relative folders that do not exist here are also looked for under W2V_JAX_CORPORA.
    """
    if data is not None:
        folder = find(data)
        check_split(folder, split)
        if is_prepared(folder):
            return load_prepared(folder, split, min_samples=min_samples)
        return load_corpus(folder, split, min_samples=min_samples)
    with tempfile.TemporaryDirectory() as folder:
        speakers = max(SyntheticConfig.speakers, round(1.3 * clients))
        write_corpus(Path(folder), SyntheticConfig(seed=seed, speakers=speakers))
        return load_corpus(folder, split, min_samples=min_samples)


def speakers_of(corpus: Corpus, split: str) -> set[str]:
    """Speakers of another split of the corpus's folder; none where the release has no such split."""
    if isinstance(corpus.clips, PreparedClips):
        prepared = corpus.clips.corpus
        return (
            set(prepared.column("client_id", prepared.select(split))) if split in prepared.splits else set()
        )
    table = corpus.folder / f"{split}.tsv"
    if not table.is_file() or lists_nothing(table.read_bytes()):
        return set()
    return {row.client_id for row in read_table(corpus.folder, split).rows}


def listed(data: str, split: str, name: str) -> list[str]:
    """A column of a split's table ("client_id", "sentence"), without reading any audio.

    Raises:
        CorpusError: no such corpus, or it has no such split.
    """
    folder = find(data)
    if is_prepared(folder):
        prepared = PreparedCorpus(folder)
        if split != "validated" and split not in prepared.splits:
            raise CorpusError(f"{folder} was prepared without {split}")
        return list(prepared.column(name, prepared.select(split)))
    return [getattr(row, name) for row in read_table(locate(folder, split), split).rows]


def check_transcripts(data: str) -> None:
    """See from the tables alone that there are transcripts, before hours of work that would need them.

    Raises:
        CorpusError: none in train, or in validated where there is no train.
    """
    for split in ("train", "validated"):
        try:
            sentences = listed(data, split, "sentence")
        except CorpusError:
            continue
        if any(sentence.strip() for sentence in sentences):
            return
        break  # fine-tuning would take this split
    raise CorpusError(f"{find(data)} has no transcripts: fine-tuning needs the `sentence` column")


def find(data: str, option: str = "--data") -> Path:
    """The folder that `--data`, or another option, names.

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
    """See that a corpus has the split that `--split` names, where it has any.

    Raises:
        CorpusError: it has others.
    """
    if is_prepared(folder):
        there = ["validated", *PreparedCorpus(folder).splits]
    else:
        there = sorted({table.stem for table in (*folder.glob("*.tsv"), *folder.glob("*/*.tsv"))})
    if split != "validated" and there and split not in there:  # validated is the default: nobody misspelt it
        raise CorpusError(f"{nearest(split, there, '--split')} in {folder}")
