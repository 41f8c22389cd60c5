"""The federated study of Figures 1 and 5: its arms, its scales, and the commands of its cells."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.options.errors import UsageError
from experiments.process.files import read_json
from experiments.runs.folder import read_metrics
from experiments.study.cells import Cell, run_cells
from w2v_jax.errors import DIVERGED, UserError

ScaleName = Literal["smoke", "small", "paper"]

SCRATCH, CENTRALISED = "scratch", "centralised"
FEDERATED = (
    "ten-clients-fedavg",
    "ten-clients-loss-weighted",
    "hundred-clients-fedavg",
    "hundred-clients-loss-weighted",
)
PRETRAINED = (CENTRALISED, *FEDERATED)
ARMS = (SCRATCH, *PRETRAINED)
LOG_MEL, RANDOM = "log-mel", "random"
PROBED = (LOG_MEL, RANDOM, *PRETRAINED)
TUNED_ON = FEDERATED[0]  # the pre-trained arm whose first seed chooses the learning rate of all
BUDGET_ARMS = (SCRATCH, CENTRALISED, TUNED_ON)
TREND_ARMS = {"finetune": (TUNED_ON,), "probe": (CENTRALISED, TUNED_ON)}
MAX_HELDOUT_SPEAKERS, HELDOUT_SHARE = 28, 0.22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """How long everything is. A federated round and a centralised stretch see the same audio.

    Attributes:
        model: preset.
        rounds: of every pre-training.
        local_work: options of pretrain by preset that set the work of a round.
        pretraining: further options of every pretrain.
        finetuning: options of every finetune but the encoder's learning rate.
        select_by: what chooses learning rates and checkpoints on the validation split. Loss where error
            rates stay too high to tell anything.
        rates: encoder learning rates that are tried, for scratch and for pre-trained encoders apart.
        probe_rates: learning rates of a probe that are tried, for each kind of features apart.
        diagnose_every: rounds between looks behind the average of federated runs.
        most_clients: of any arm.
        synthetic_speakers: of the corpus that is made where none is given.
        probe: options of every probe.
        budget_minutes: smaller training splits that are fine-tuned on besides the whole one.
        trend_rounds: earlier rounds whose encoders are probed and fine-tuned too.
    """

    model: str
    rounds: int
    local_work: dict[str, tuple[str, ...]]
    pretraining: tuple[str, ...]
    finetuning: tuple[str, ...]
    select_by: Literal["wer", "cer", "loss"]
    rates: tuple[float, ...]
    probe_rates: tuple[float, ...]
    diagnose_every: int
    most_clients: int
    synthetic_speakers: int
    probe: tuple[str, ...]
    budget_minutes: tuple[float, ...]
    trend_rounds: tuple[int, ...]


_ADAM = ("--head-optimizer", "adam", "--schedule", "tri-stage")
_PROBE = (*_ADAM, "--head-blocks", "0", "--no-augment")

SCALES: dict[str, Scale] = {
    "smoke": Scale(
        model="tiny",
        rounds=2,
        local_work={
            "ten-clients": ("--clients", "5", "--local-steps", "2"),
            "hundred-clients": ("--clients", "10", "--clients-per-round", "5", "--local-steps", "2"),
            CENTRALISED: ("--local-steps", "10"),
        },
        pretraining=("--batch-size", "2", "--crop-seconds", "0.8", "--evaluate-every", "1",
                     "--checkpoint-every", "1"),
        finetuning=(*_ADAM, "--updates", "4", "--batch-seconds", "16", "--evaluate-every", "2",
                    "--head-blocks", "1", "--head-width", "32"),
        select_by="loss",
        rates=(1e-3, 3e-3),
        probe_rates=(1e-2, 3e-2),
        diagnose_every=2,
        most_clients=10,
        synthetic_speakers=40,
        probe=(*_PROBE, "--updates", "4", "--batch-seconds", "16"),
        budget_minutes=(0.5,),
        trend_rounds=(1,),
    ),
    "small": Scale(
        model="tiny",
        rounds=24,
        local_work={
            "ten-clients": ("--local-steps", "24"),
            "hundred-clients": ("--local-steps", "12"),
            CENTRALISED: ("--local-steps", "240"),
        },
        pretraining=("--evaluate-every", "2", "--checkpoint-every", "4"),
        finetuning=(*_ADAM, "--updates", "600", "--batch-seconds", "16", "--evaluate-every", "100",
                    "--head-learning-rate", "1e-3"),
        select_by="loss",
        rates=(3e-4, 1e-3, 3e-3),
        probe_rates=(3e-3, 1e-2, 3e-2),
        diagnose_every=8,
        most_clients=100,
        synthetic_speakers=140,
        probe=(*_PROBE, "--updates", "600", "--batch-seconds", "16", "--evaluate-every", "150"),
        budget_minutes=(5.0, 15.0),
        trend_rounds=(4, 12),
    ),
    # The paper prints neither rounds nor local work of its federated runs: these are ours, an epoch of a
    # client's 19,473 clips a round with ten of them. Fine-tuning is SpeechBrain's Italian recipe.
    "paper": Scale(
        model="base",
        rounds=20,
        local_work={
            "ten-clients": ("--local-steps", "4870"),
            "hundred-clients": ("--local-steps", "2435"),
            CENTRALISED: ("--local-steps", "48700"),
        },
        pretraining=("--precision", "bf16", "--evaluate-every", "1", "--checkpoint-every", "5"),
        finetuning=("--precision", "bf16", "--tokens", "pieces", "--pieces", "1000"),
        select_by="wer",
        rates=(3e-5, 1e-4, 3e-4),
        probe_rates=(1e-3, 3e-3, 1e-2),
        diagnose_every=5,
        most_clients=100,
        synthetic_speakers=140,
        probe=("--precision", "bf16", *_PROBE, "--updates", "20000"),
        budget_minutes=(60.0, 600.0),
        trend_rounds=(5, 10),
    ),
}  # fmt: skip


class Trial(NamedTuple):
    """A learning rate that is tried: of the encoder in fine-tuning, or of a probe's head."""

    what: Literal["encoder", "probe"]
    arm: str
    rate: float
    cell: Cell


class Rates(NamedTuple):
    """The learning rates that the tuning chose, by the arm that they were tried on."""

    encoder: dict[str, float]  # scratch, and an arm that stands for all pre-trained ones
    probe: dict[str, float]  # log-mel, a random encoder, and that arm

    def of_encoder(self, arm: str) -> float:
        """The rate of an arm's encoder in fine-tuning."""
        return self.encoder[arm if arm == SCRATCH else TUNED_ON]

    def of_probe(self, arm: str) -> float:
        """The rate of a probe on an arm's features."""
        return self.probe[arm if arm in (LOG_MEL, RANDOM) else TUNED_ON]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A study in its folder."""

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
        """Where a cell's run is."""
        return self.out / "cells" / f"{name}-{seed}"

    def pretraining(self, arm: str, seed: int) -> Cell:
        """The pre-training of an arm."""
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
        """A fine-tuning on an arm's encoder, or from scratch."""
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
        """A linear probe on frozen features."""
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
        """The learning rates that are tried, on the first seed."""
        for arm in (SCRATCH, TUNED_ON):
            for rate in self.scale.rates:
                yield Trial("encoder", arm, rate, self.finetuning(arm, 0, rate, name=f"tune-{rate:g}"))
        for arm in (LOG_MEL, RANDOM, TUNED_ON):
            for rate in self.scale.probe_rates:
                yield Trial("probe", arm, rate, self.probe(arm, 0, rate, name=f"tune-probe-{rate:g}"))

    def chosen_rates(self) -> Rates:
        """The learning rates that validated best, of those that did not diverge.

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
    """Held-out speakers of all arms alike: about a fifth, at most 28, and a speaker left for every client.

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
    """Make the synthetic corpus of a study that has no other."""
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
    """All pre-training runs, a seed at a time, so that an interrupted study has whole seeds."""
    return [study.pretraining(arm, seed) for seed in study.seed_range() for arm in PRETRAINED]


def chosen_rates(study: Study, jobs: int = 1) -> Rates:
    """Run the tuning, then say which learning rates it chose."""
    run_cells([study.pretraining(TUNED_ON, 0)], "pre-training to tune on")
    run_cells([trial.cell for trial in study.tuning()], "learning rates", jobs, excused=DIVERGED)
    return study.chosen_rates()


def finetuning_cells(study: Study, rates: Rates) -> list[Cell]:
    """Every arm's fine-tuning on the whole training split."""
    return [study.finetuning(arm, seed, rates.of_encoder(arm)) for seed in study.seed_range() for arm in ARMS]


def fairness_cells(study: Study, rates: Rates) -> list[Cell]:
    """Probes, smaller budgets, and encoders of earlier rounds."""
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


def recognised(folder: Path) -> dict[str, Any]:
    """What a fine-tuning's row keeps of its results."""
    result = read_json(folder / "results.json")
    return {name: result["test"][name] for name in ("wer", "cer", "loss", "empty_hypotheses")} | {
        **{f"dev_{name}": result["dev"][name] for name in ("cer", "loss")},
        "best_update": result["best_update"],
        "audio_seconds": result["audio_seconds"],
        "train_seconds": result["train_seconds"],
        "commit": result["provenance"]["commit"],
    }


def curve(folder: Path) -> dict[str, list[float]]:
    """A pre-training's held-out curve, from the untrained model on.

    Returns:
        Lists: round, sequential `updates` that the model went through, `audio_seconds` heard by all
        clients together, and held-out loss, accuracy and code perplexity there.
    """
    untrained = read_json(folder / "untrained.json")
    names = {"loss": "contrastive", "accuracy": "accuracy", "code_perplexity": "code_perplexity"}
    found: dict[str, list[float]] = {
        "round": [0],
        "updates": [0],
        "audio_seconds": [0.0],
        **{ours: [untrained[theirs]] for ours, theirs in names.items()},
    }
    audio, updates = 0.0, 0
    for line in read_metrics(folder / "metrics.jsonl"):
        audio += line["audio_seconds"]
        updates += round(line["local_steps"] / max(1, line["clients"]))
        if line.get("heldout_contrastive") is None:
            continue
        found["round"].append(line["round"])
        found["updates"].append(updates)
        found["audio_seconds"].append(audio)
        for ours, theirs in names.items():
            found[ours].append(line[f"heldout_{theirs}"])
    return found
