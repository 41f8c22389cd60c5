"""The options of `w2v-jax probe`. Imports no jax."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

Head = Literal["linear", "mlp", "weighted-sum"]
ClassTask = Literal["keywords", "speaker"]
ProbeTask = ClassTask | Literal["characters"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeArguments:
    """Judge frozen encoders by what simple probes read from their frames, beside log-mel and random.

    example: w2v-jax probe runs/first --data corpora/it --task keywords
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Encoders: run folders of w2v-jax pretrain (RUN@ROUND or RUN@best for another checkpoint), finetune or
    convert, or hf:FOLDER."""
    data: str
    """Common Voice folder or prepared data set whose clips have classes or transcripts."""
    task: ProbeTask = "keywords"
    """Task of the probes. For keywords, the class is a column of the table, and test has other speakers than
    train. For speaker, the class is the speaker, and every speaker's clips are split. For characters, the
    column `sentence` is written by CTC, and the score is the character error rate."""
    column: str = "sentence"
    """For keywords, column of the table that holds the class of a clip."""
    heads: tuple[Head, ...] = ("linear", "mlp", "weighted-sum")
    """Probes to train. linear is a linear map (ridge regression, or CTC for characters), which is always
    among them and alone is the fastest. mlp is a network with one hidden layer. weighted-sum is a linear map
    of a learnt sum of the layers."""
    labels: tuple[float, ...] = (100.0,)
    """Percentages of the training labels that linear probes are trained with, such as 1 5 10 100."""
    out: Path | None = None
    """Folder for the report. Default: runs/probe-NAMES."""
    seed: int = 0
    """Seed of the networks, of the choice of few labels, and of the splits of the task speaker."""
