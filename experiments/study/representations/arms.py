"""The arms of the study of representations, and the commands of its runs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from experiments.study.cells import Cell

BEST_RQ, WAV2VEC2, WAVEFORM = "best-rq", "wav2vec2", "wav2vec2-waveform"
# The preset of each encoder; the first two differ in their objective alone, the last two in their front end.
MODELS = {BEST_RQ: "best-rq-tiny", WAV2VEC2: "log-mel-tiny", WAVEFORM: "tiny"}
CENTRALISED, FEDAVG, LOSS_WEIGHTED, SPEAKERS = "centralised", "ten clients", "loss-weighted", "speakers"
DILOCO = "diloco"
TRAININGS = (CENTRALISED, FEDAVG, LOSS_WEIGHTED, SPEAKERS, DILOCO)
SPLIT = 4  # DiLoCo's momentum needs rounds: it has so many times the rounds, of so many times fewer steps
LABELS = (1, 10, 100)  # percentages of the training labels
CLIENTS = 10
StudyTask = Literal["keywords", "characters"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """The length of every run; all hear the same audio.

    Attributes:
        rounds: rounds, or stretches of a centralised run.
        local_steps: steps of a client in a round.
        batch_size: crops in a client's update.
        central_batch_size: crops in an update without clients.
        heldout_speakers: speakers on whom the pretext task is evaluated.
        words: further options of every pre-training.
        probe: further options of every probe.
    """

    rounds: int
    local_steps: int
    batch_size: int
    central_batch_size: int
    heldout_speakers: int
    words: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()

    @property
    def central_steps(self) -> int:
        """Steps of a stretch without clients that hear as many crops as a round of ten clients."""
        return max(1, CLIENTS * self.local_steps * self.batch_size // self.central_batch_size)


SCALES = {
    "smoke": Scale(
        rounds=1,
        local_steps=1,
        batch_size=2,
        central_batch_size=4,
        heldout_speakers=1,
        words=("--seconds", "0.6"),
    ),
    "small": Scale(
        rounds=10,
        local_steps=40,
        batch_size=4,
        central_batch_size=32,
        heldout_speakers=2,
        words=("--evaluate-every", "5"),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """An encoder that is pre-trained in one way, with every seed."""

    encoder: str
    training: str

    @property
    def name(self) -> str:
        return f"{self.encoder}, {self.training}"

    @property
    def slug(self) -> str:
        """The arm as the name of a folder."""
        return f"{self.encoder}-{self.training}".replace(" ", "-")

    def words(self, scale: Scale) -> list[str]:
        """List the options of its pre-training."""
        rounds, steps, batch = scale.rounds, scale.local_steps, scale.batch_size
        if self.training == CENTRALISED:
            steps, batch = scale.central_steps, scale.central_batch_size
        if self.training == DILOCO and steps % SPLIT == 0:
            rounds, steps = rounds * SPLIT, steps // SPLIT
        words = ["--model", MODELS[self.encoder], "--rounds", str(rounds)]
        words += ["--preset", "centralised" if self.training == CENTRALISED else "ten-clients"]
        if self.training == DILOCO:
            words += ["--algorithm", "diloco"]
        if self.training == LOSS_WEIGHTED:
            words += ["--aggregation", "loss-weighted"]
        if self.training == SPEAKERS:
            words += ["--partition", "speakers", "--clients-per-round", str(CLIENTS)]
        return [*words, "--local-steps", str(steps), "--batch", str(batch)]


def arms(encoders: Sequence[str], trainings: Sequence[str]) -> list[Arm]:
    """List the arms of all encoders and ways of training."""
    return [Arm(encoder=encoder, training=training) for encoder in encoders for training in trainings]


def pretraining(
    arm: Arm, seed: int, data: str, scale: Scale, out: Path, crop_seconds: float | None = None
) -> Cell:
    """Build the cell of one pre-training; test speakers are never heard.

    Args:
        arm, seed: which one.
        data: the corpus.
        scale: of the study.
        out: the study's folder.
        crop_seconds: of the training crops; None leaves them to the scale, or to the command.
    """
    name = f"{arm.slug}-{seed}"
    common = ["--data", data, "--seed", str(seed), "--exclude-speakers-of", "test"]
    common += ["--heldout-speakers", str(scale.heldout_speakers), *scale.words]
    if crop_seconds is not None:
        common += ["--seconds", f"{crop_seconds:g}"]
    return Cell(
        name=f"pretrain {name}",
        arguments=("pretrain", *arm.words(scale), *common),
        out=out / "cells" / name,
        product="report.html",
    )


def probing(
    runs: Sequence[Path], seed: int, data: str, scale: Scale, out: Path, task: StudyTask = "keywords"
) -> Cell:
    """Build the cell that probes all runs of a seed, with their baselines, for a task."""
    labels = ["--labels", *map(str, LABELS)]
    named = [] if task == "keywords" else ["--task", task]
    return Cell(
        name=f"probe {seed}",
        arguments=(
            *("probe", *map(str, runs), "--data", data, "--seed", str(seed)),
            *("--heads", "linear", *named, *labels, *scale.probe),
        ),
        out=out / "cells" / f"probe-{seed}",
        product="result.json",
    )
