"""The arms of the study of few labels, and the commands of its runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.study.cells import Cell
from experiments.study.representations.arms import MODELS
from experiments.study.representations.arms import Arm as Pretrained

LOG_MEL = "log-mel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """Keyword models that begin in one way, with every seed.

    Attributes:
        name: in the report.
        encoder: that of the study of representations; None for log-mel features without an encoder.
        pretrained: the arm of that study whose encoder is fine-tuned; None for one that is untrained.
    """

    name: str
    encoder: str | None = None
    pretrained: Pretrained | None = None

    @property
    def slug(self) -> str:
        """The arm as the name of a folder."""
        return self.name.replace(", ", "-").replace(" ", "-")

    def words(self, representations: Path, seed: int) -> list[str]:
        """List the options that say where its model begins.

        Args:
            representations: the folder of the study whose encoders are fine-tuned.
            seed: the seed of the pre-training.
        """
        if self.encoder is None:
            return ["--features", "log-mel"]
        if self.pretrained is None:
            return ["--model", MODELS[self.encoder]]
        return ["--init", str(representations / "cells" / f"{self.pretrained.slug}-{seed}")]


def arms(
    study: Mapping[str, Any], encoders: Sequence[str] | None = None, trainings: Sequence[str] | None = None
) -> list[Arm]:
    """List the arms: every pre-training of a study of representations, its encoder from scratch, log-mel.

    Args:
        study: the study's result.
        encoders: encoders to take; None takes all.
        trainings: ways of pre-training to take; None takes all.
    """
    found = [Arm(name=LOG_MEL)]
    held = dict.fromkeys(
        (row["encoder"], row["training"])
        for row in study["rows"]
        if (encoders is None or row["encoder"] in encoders)
        and (trainings is None or row["training"] in trainings)
    )
    for encoder in dict.fromkeys(encoder for encoder, _ in held):
        found.append(Arm(name=f"{encoder}, scratch", encoder=encoder))
        for training in [training for name, training in held if name == encoder]:
            source = Pretrained(encoder=encoder, training=training)
            found.append(Arm(name=source.name, encoder=encoder, pretrained=source))
    return found


def pairs(chosen: Sequence[Arm]) -> list[tuple[str, str]]:
    """List the comparisons: every pre-trained encoder with the same from scratch, and with log-mel."""
    scratch = {arm.encoder: arm.name for arm in chosen if arm.pretrained is None}
    return [
        (arm.name, other)
        for arm in chosen
        if arm.pretrained
        for other in (scratch[arm.encoder], scratch[None])
    ]


def finetuning(
    arm: Arm, seed: int, data: str, labels: float, representations: Path, further: Sequence[str], out: Path
) -> Cell:
    """Build the cell of one fine-tuning; pre-training and fine-tuning have the same seed."""
    return Cell(
        name=f"finetune {arm.slug}-{seed}",
        arguments=(
            *("finetune", "--task", "keywords", "--data", data, "--labels", f"{labels:g}"),
            *("--seed", str(seed), *arm.words(representations, seed), *further),
        ),
        out=out / "cells" / f"{arm.slug}-{seed}",
        product="results.json",
    )
