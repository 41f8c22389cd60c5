"""Rehearse blocks whose commands need hours or data that are not here: every line runs, made small.

The lines are the documents' own. SMALLER adds options to them, and `prepare` makes in the working folder what
they name: corpora, a release, recordings, models of other programs. Programs of other packages are left out.
"""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import soundfile

from tests import fairseq_files
from tests.configs import VARIANTS
from tests.docs.commands import ELSEWHERE, split_command
from tests.experiments.models.test_convert import parameters_of, write_folder
from tests.experiments.probe import corpora as tones
from tests.experiments.probe.corpora import said
from tests.paths import ROOT
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.prepared import preparation
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.interop.huggingface_names import PRE_TRAINING

TINY_STEP = "--model tiny --batch 2 --seconds 1"
SMOKE = "--scale smoke --seeds 1"
# By command; an option that is given twice has the last value.
SMALLER = {
    "pretrain": "--model tiny --rounds 2 --local-steps 1 --batch 2 --seconds 1 --evaluate-every 2",
    "data prepare": "--out prepared/again",  # `prepare` makes prepared/it, which other lines read
    "finetune": "--updates 4 --evaluate-every 2 --batch-seconds 8 --head-width 32",
    "watch": "--once",
    "profile": TINY_STEP,
    "export": TINY_STEP,
    "bench memory": TINY_STEP,
    "bench clients": "--clients 1 2 --repeats 1",
    "reproduce fig1": SMOKE,
    "reproduce fig5": SMOKE,
    "study mechanism": SMOKE,
    "study length": SMOKE,
    "study representations": f"{SMOKE} --encoders best-rq --trainings centralised",
    "study few-labels": "--scale smoke",
}
SPEAKERS = 130  # a hundred clients, and dev and test beside them
RELEASE = "cv-corpus-7.0-2021-07-21"


def smaller(words: list[str]) -> list[str] | None:
    """Return a line's words with options that make it small; None for a program of another package."""
    if words[0] in ELSEWHERE:
        return None
    name, rest = split_command(words[1:])
    if "--list" in rest:
        return words
    pieces = ["--pieces", "40"] if "pieces" in rest else []  # as many as so little text can give
    made_small = SMALLER.get(name, "").split()
    if {"--task", "keywords"} <= set(rest):  # a head without blocks has no width, and is exported
        made_small = made_small[: made_small.index("--head-width")]
    if name == "finetune" and {"--clients", "--partition"} & set(rest):  # rounds in place of updates
        made_small = ["--rounds", "2", "--local-steps", "1", *made_small[2:]]
    return [*words, *made_small, *pieces]


def prepare(folder: Path) -> None:
    """Make in `folder` what the documents' commands name."""
    speech = SyntheticConfig(speakers=SPEAKERS, clips_per_speaker=2, words=40, words_per_sentence=(2, 3))
    locale = write_corpus(folder / "corpora", speech).rename(folder / "corpora" / "en")
    shutil.copytree(locale, folder / "corpora" / "it")
    keywords = SyntheticConfig(speakers=6, clips_per_speaker=12, words=3, words_per_sentence=(1, 1))
    write_corpus(folder / "commands", keywords).rename(folder / "corpora" / "commands")
    words = {"train": said("abc", times=8), "dev": said("de"), "test": said("fg")}
    tones.write(folder / "corpora" / "words", words)
    with tarfile.open(folder / f"{RELEASE}-it.tar.gz", "w:gz") as release:
        release.add(locale, f"{RELEASE}/it")
    preparation.prepare(folder / f"{RELEASE}-it.tar.gz", folder / "prepared" / "it", workers=2)
    (folder / "clips").mkdir()
    tone = 0.2 * np.sin(np.arange(2 * SAMPLE_RATE_HZ) / 9)
    for path in (folder / "interview.mp3", folder / "clips" / "first.flac", folder / "clips" / "second.flac"):
        soundfile.write(path, tone, SAMPLE_RATE_HZ)
    write_folder(folder / "wav2vec2-base", VARIANTS["group-norm"], PRE_TRAINING)
    config = fairseq_files.config_of("group")
    fairseq_files.write(folder / "wav2vec_small.pt", config, parameters_of(config))
    shutil.copytree(ROOT / "docs" / "results", folder / "docs" / "results")
