"""Common Voice as a tensorflow_datasets builder, from a release that its user brings.

    builder = CommonVoice(source="cv-corpus-7.0-2021-07-21-it.tar.gz", locale="it", data_dir="datasets")
    builder.download_and_prepare()
    clips = builder.as_data_source("validated")

tensorflow_datasets starts again from nothing when its preparation is killed. So the decoding is done by
`preparation.prepare`, which continues, and the builder's examples come from what that has written.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from w2v_jax.data.prepared import records
from w2v_jax.data.prepared.corpus import UNION, PreparedCorpus
from w2v_jax.data.prepared.preparation import prepare


class CommonVoice(tfds.core.GeneratorBasedBuilder):
    """One locale of any Common Voice release; ArrayRecord files, without TensorFlow."""

    VERSION = tfds.core.Version(records.VERSION)
    RELEASE_NOTES: ClassVar = {records.VERSION: "First one."}

    def __init__(self, *, source: Path | str, locale: str | None = None, workers: int = 2, **kwargs: Any):
        """Take the arguments of any tfds builder, and the release to read.

        Args:
            source: tarball or folder of a release.
            locale: which one, where there are several.
            workers: decoding threads.
            kwargs: `data_dir` and what else tfds.core.DatasetBuilder takes.
        """
        self._source, self._locale, self._workers = Path(source).resolve(), locale, workers
        # A configuration of its own, so that one release is never taken for another.
        identity = hashlib.sha256(f"{self._source}\0{locale}".encode()).hexdigest()[:8]
        name = "-".join(filter(None, [self._source.name.partition(".")[0], locale, identity]))
        config = tfds.core.BuilderConfig(
            name=name, description=f"{self._source.name}, {locale or 'its locale'}"
        )
        super().__init__(file_format="array_record", config=config, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=records.features(),
            description=records.DESCRIPTION,
            homepage=records.HOMEPAGE,
            metadata=tfds.core.MetadataDict(sample_rate_hz=records.SAMPLE_RATE_HZ),
            disable_shuffling=True,
        )

    def as_data_source(self, split: Any = None, **kwargs: Any) -> Any:
        """Open splits as tfds does; "validated" is all splits together."""
        if split == UNION:
            split = "+".join(self.info.splits)
        parent: Any = super()
        return parent.as_data_source(split=split, **kwargs)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        assert self.builder_config is not None
        decoded = Path(self._data_dir_root) / f"{records.NAME}-{self.builder_config.name}"
        prepare(self._source, decoded, locale=self._locale, workers=self._workers)
        corpus = PreparedCorpus(decoded)
        return {split: self._generate_examples(corpus, split) for split in corpus.splits}

    def _generate_examples(self, corpus: PreparedCorpus, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in corpus.select(split):
            yield int(number), corpus.record(int(number))
