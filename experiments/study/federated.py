"""The federated study of Figures 1 and 5: the commands of its cells."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from experiments.options.errors import UsageError
from experiments.process.files import read_json
from experiments.study.cells import Cell, run_cells
from experiments.study.federated_scales import (
    ARMS,
    BUDGET_ARMS,
    CENTRALISED,
    LOG_MEL,
    PRETRAINED,
    PROBED,
    RANDOM,
    SCALES,
    SCRATCH,
    TREND_ARMS,
    TUNED_ON,
    Scale,
    ScaleName,
)
from w2v_jax.errors import DIVERGED, UserError

MAX_HELDOUT_SPEAKERS, HELDOUT_SHARE = 28, 0.22


class Trial(NamedTuple):
    """A learning rate to try, for the encoder in fine-tuning or for a probe's head."""

    what: Literal["encoder", "probe"]
    arm: str
    rate: float
    cell: Cell


class Rates(NamedTuple):
    """The learning rates that the tuning chose, by the arm on which it tried them."""

    encoder: dict[str, float]  # for scratch, and for TUNED_ON, which stands for all pre-trained arms
    probe: dict[str, float]  # for log-mel, for a random encoder, and for TUNED_ON

    def of_encoder(self, arm: str) -> float:
        """Return the learning rate of an arm's encoder in fine-tuning."""
        return self.encoder[arm if arm == SCRATCH else TUNED_ON]

    def of_probe(self, arm: str) -> float:
        """Return the learning rate of a probe on an arm's features."""
        return self.probe[arm if arm in (LOG_MEL, RANDOM) else TUNED_ON]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A federated study: its data, scale and seeds, and the folder of its runs."""

    scale_name: ScaleName
    data: str
    seeds: int
    out: Path
    heldout_speakers: int

    @property
    def scale(self) -> Scale:
        return SCALES[self.scale_name]

    def _cell(self, name: str, seed: int, arguments: Sequence[str], product: str) -> Cell:
        words = (*arguments, "--data", self.data, "--seed", str(seed))
        return Cell(name=f"{name}-{seed}", arguments=words, out=self.folder(name, seed), product=product)

    def folder(self, name: str, seed: int) -> Path:
        """Return the folder of a cell's run."""
        return self.out / "cells" / f"{name}-{seed}"

    def pretraining(self, arm: str, seed: int) -> Cell:
        """Build the cell that pre-trains an arm."""
        scale = self.scale
        preset = next(p for p in scale.local_work if arm.startswith(p))
        words = ["pretrain", "--preset", preset, "--model", scale.model, "--rounds", str(scale.rounds)]
        words += ["--heldout-speakers", str(self.heldout_speakers)]
        if preset != CENTRALISED:
            words += ["--aggregation", arm.removeprefix(f"{preset}-")]
            words += ["--diagnose-every", str(scale.diagnose_every)]
        words += [*scale.local_work[preset], *scale.pretraining]
        words += ["--keep-checkpoints", str(scale.rounds)]
        return self._cell(f"pretrain-{arm}", seed, words, "report.html")

    def finetuning(
        self,
        arm: str,
        seed: int,
        rate: float,
        *,
        name: str = "finetune",
        minutes: float | None = None,
        at_round: int | None = None,
    ) -> Cell:
        """Build the cell that fine-tunes an arm's encoder, or trains from scratch."""
        words = ["finetune", *self._encoder(arm, seed, at_round), *self.scale.finetuning]
        words += ["--select-by", self.scale.select_by]
        words += ["--encoder-learning-rate", f"{rate:g}"]
        if minutes is not None:
            words += ["--train-minutes", f"{minutes:g}"]
            name += f"-{minutes:g}min"
        if at_round is not None:
            name += f"-round{at_round}"
        return self._cell(f"{name}-{arm}", seed, words, "report.html")

    def probe(
        self, arm: str, seed: int, rate: float, *, name: str = "probe", at_round: int | None = None
    ) -> Cell:
        """Build the cell that trains a linear probe on frozen features."""
        if arm == LOG_MEL:
            source = ["--features", LOG_MEL, "--model", self.scale.model]
        else:
            source = [
                *self._encoder(SCRATCH if arm == RANDOM else arm, seed, at_round),
                "--freeze",
                "encoder",
            ]
        words = ["finetune", *source, *self.scale.probe, "--select-by", self.scale.select_by]
        words += ["--head-learning-rate", f"{rate:g}"]
        if at_round is not None:
            name += f"-round{at_round}"
        return self._cell(f"{name}-{arm}", seed, words, "report.html")

    def _encoder(self, arm: str, seed: int, at_round: int | None) -> list[str]:
        if arm == SCRATCH:
            return ["--init", SCRATCH, "--model", self.scale.model]
        suffix = f"@{at_round}" if at_round is not None else ""
        return ["--init", f"{self.folder(f'pretrain-{arm}', seed)}{suffix}"]

    def tuning(self) -> Iterator[Trial]:
        """Yield the learning rates to try, each with its cell; all use the first seed."""
        for arm in (SCRATCH, TUNED_ON):
            for rate in self.scale.rates:
                yield Trial("encoder", arm, rate, self.finetuning(arm, 0, rate, name=f"tune-{rate:g}"))
        for arm in (LOG_MEL, RANDOM, TUNED_ON):
            for rate in self.scale.probe_rates:
                yield Trial("probe", arm, rate, self.probe(arm, 0, rate, name=f"tune-probe-{rate:g}"))

    def chosen_rates(self) -> Rates:
        """Choose the learning rates with the best validation among those that did not diverge.

        Raises:
            UserError: every rate of an arm diverged.
        """
        best: dict[tuple[str, str], tuple[float, float]] = {}
        for what, arm, rate, cell in self.tuning():
            best.setdefault((what, arm), (float("inf"), 0.0))
            if cell.finished:
                found = read_json(cell.out / "results.json")["dev"][self.scale.select_by]
                best[what, arm] = min(best[what, arm], (found, rate))
        if none := [f"{what} on {arm}" for (what, arm), (_, rate) in best.items() if not rate]:
            raise UserError(f"training diverged at every learning rate that was tried: {', '.join(none)}")
        return Rates(
            *({arm: rate for (of, arm), (_, rate) in best.items() if of == what} for what in Rates._fields)
        )

    def seed_range(self) -> range:
        return range(self.seeds)


def heldout_speakers(speakers: int, most_clients: int) -> int:
    """Choose the number of held-out speakers: about a fifth, at most 28, leaving a speaker for every client.

    All arms hold out the same number.

    Raises:
        UsageError: too few speakers.
    """
    found = min(MAX_HELDOUT_SPEAKERS, round(HELDOUT_SHARE * speakers), speakers - most_clients)
    if found < 1:
        raise UsageError(
            f"{speakers} speakers are too few for {most_clients} clients and held-out ones: give a larger "
            "corpus, or --scale smoke"
        )
    return found


def prepare(study: Study) -> None:
    """Make the synthetic corpus of a study that was given no other."""
    made = study.out / "corpus"
    if study.data == str(made):
        run_cells(
            [
                Cell(
                    name="corpus",
                    arguments=("data", "synth", "--speakers", str(study.scale.synthetic_speakers)),
                    out=made,
                    product="xx/validated.tsv",
                )
            ],
            "synthetic corpus",
        )


def pretraining_cells(study: Study) -> list[Cell]:
    """List all pre-training cells, seed by seed, so that an interrupted study has whole seeds."""
    return [study.pretraining(arm, seed) for seed in study.seed_range() for arm in PRETRAINED]


def chosen_rates(study: Study, jobs: int = 1) -> Rates:
    """Run the tuning and return the learning rates that it chooses."""
    run_cells([study.pretraining(TUNED_ON, 0)], "pre-training to tune on")
    run_cells([trial.cell for trial in study.tuning()], "learning rates", jobs, excused=DIVERGED)
    return study.chosen_rates()


def finetuning_cells(study: Study, rates: Rates) -> list[Cell]:
    """List the fine-tuning of every arm on the whole training split."""
    return [study.finetuning(arm, seed, rates.of_encoder(arm)) for seed in study.seed_range() for arm in ARMS]


def fairness_cells(study: Study, rates: Rates) -> list[Cell]:
    """List the cells of probes, of smaller budgets, and of encoders of earlier rounds."""
    found = []
    for seed in study.seed_range():
        found += [study.probe(arm, seed, rates.of_probe(arm)) for arm in PROBED]
        for minutes in study.scale.budget_minutes:
            found += [
                study.finetuning(arm, seed, rates.of_encoder(arm), minutes=minutes) for arm in BUDGET_ARMS
            ]
        for at_round in study.scale.trend_rounds:
            found += [
                study.probe(arm, seed, rates.of_probe(arm), at_round=at_round) for arm in TREND_ARMS["probe"]
            ]
            found += [
                study.finetuning(arm, seed, rates.of_encoder(arm), at_round=at_round)
                for arm in TREND_ARMS["finetune"]
            ]
    return found
