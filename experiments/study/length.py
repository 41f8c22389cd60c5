"""`w2v-jax study length`: pre-training on clips cut to 1, 2, 4 and 8 s at equal audio (section 3.2)."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.options import arguments
from experiments.process.provenance import record_provenance
from experiments.report.writer import write_report
from experiments.runs.folder import METRICS, read_config, read_metrics
from experiments.runs.tasks import require_objective
from experiments.study.cells import Cell, check_counts, run_cells
from experiments.study.federated_results import recognised
from experiments.study.federated_scales import SCALES
from experiments.study.length_settings import BATCH_SECONDS, CROP_SECONDS
from w2v_jax.config import SAMPLE_RATE_HZ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """The length of every run.

    Attributes:
        audio_seconds: seconds of audio that every pre-training hears.
        rounds: stretches of equal audio, each with an evaluation after it.
        finetuning: options of every fine-tuning except the encoder's learning rate.
        learning_rate: the learning rate of the encoder in fine-tuning.
    """

    audio_seconds: float
    rounds: int
    finetuning: tuple[str, ...]
    learning_rate: float


SCALES_OF_LENGTH = {
    "smoke": Scale(audio_seconds=64.0, rounds=2, finetuning=SCALES["smoke"].finetuning, learning_rate=1e-3),
    "small": Scale(
        audio_seconds=16_000.0,
        rounds=8,
        finetuning=(*SCALES["small"].finetuning, "--select-by", SCALES["small"].select_by),
        learning_rate=1e-3,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthArguments:
    """Pre-train on crops of 1, 2, 4 and 8 s at equal audio; report costs and errors. Continues when rerun.

    example: w2v-jax study length --data corpora/en --scale small
    """

    data: Path
    """A Common Voice locale's folder or its parent, with transcripts."""
    scale: Literal["smoke", "small"] = "small"
    """Size of the runs. small takes about four minutes for each of 4 lengths and each seed on two cores.
    smoke is a trial of minutes."""
    seeds: int = 3
    """Number of seeds of every length; they are 0, 1, and so on."""
    jobs: int = 1
    """Number of runs side by side; they share the machine, so each takes longer."""
    out: Path = Path("runs/length")
    """Folder for length.json, length.md and length.png; the runs are in its folder `cells`."""


def steps_of(crop_seconds: float, clip_seconds: np.ndarray, scale: Scale) -> int:
    """Compute the updates of a stretch with which every length of crop hears the same audio.

    A crop that is longer than its clip hears the clip alone, so that long crops need more updates.

    Args:
        crop_seconds: length of the crops.
        clip_seconds: length of every clip of the corpus, float [clip].
        scale: gives the audio and the number of stretches.
    """
    batch = round(BATCH_SECONDS / crop_seconds)
    heard = batch * float(np.minimum(clip_seconds, crop_seconds).mean())
    return max(1, round(scale.audio_seconds / scale.rounds / heard))


def cells_of(options: LengthArguments, clip_seconds: np.ndarray) -> list[tuple[float, int, Cell, Cell]]:
    """List every run as (crop seconds, seed, pre-training, fine-tuning)."""
    scale, found = SCALES_OF_LENGTH[options.scale], []
    for seed in range(options.seeds):
        for crop in CROP_SECONDS:
            name = f"{crop:g}s-{seed}"
            common = ("--data", str(options.data), "--seed", str(seed))
            words = ["pretrain", "--preset", "centralised", "--model", "tiny", "--rounds", str(scale.rounds)]
            words += ["--seconds", f"{crop:g}", "--batch", str(round(BATCH_SECONDS / crop))]
            words += ["--local-steps", str(steps_of(crop, clip_seconds, scale)), "--evaluate-every", "1"]
            before = Cell(
                name=f"pretrain-{name}",
                arguments=(*words, *common),
                out=options.out / "cells" / f"pretrain-{name}",
                product="report.html",
            )
            rate = ("--encoder-learning-rate", f"{scale.learning_rate:g}")
            after = Cell(
                name=f"finetune-{name}",
                arguments=("finetune", "--init", str(before.out), *scale.finetuning, *rate, *common),
                out=options.out / "cells" / f"finetune-{name}",
                product="report.html",
            )
            found.append((crop, seed, before, after))
    return found


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(LengthArguments, argv, "w2v-jax study length")
    check_counts(options)
    from experiments.data import corpora
    from w2v_jax.data.common_voice import lengths

    corpora.check_transcripts(str(options.data))
    corpus = corpora.load(str(options.data), "validated", min_samples=1, seed=0)
    clip_seconds = lengths(corpus.clips) / SAMPLE_RATE_HZ
    plan = cells_of(options, clip_seconds)
    # All encoders come first: the cells of one call may run side by side.
    seconds = run_cells([before for _, _, before, _ in plan], "pre-training", options.jobs)
    seconds |= run_cells([after for *_, after in plan], "fine-tuning", options.jobs)
    result = {
        "scale": {"name": options.scale} | dataclasses.asdict(SCALES_OF_LENGTH[options.scale]),
        "data": str(options.data),
        "seeds": options.seeds,
        "jobs": options.jobs,
        "clip_seconds_mean": float(clip_seconds.mean()),
        "rows": [
            {"crop_seconds": crop, "seed": seed, **row(before.out, after.out)}
            for crop, seed, before, after in plan
        ],
        "costs": [costs(crop) for crop in CROP_SECONDS],
        "cell_seconds": seconds,
        "provenance": provenance([cell for _, _, *both in plan for cell in both]),
    }
    print(write(result, options.out))
    print(f"written: {options.out / 'length.json'}, length.md, length.png")


def row(before: Path, after: Path) -> dict[str, Any]:
    """Read the results of one length and seed.

    Raises:
        UserError: the run has another objective.
    """
    require_objective(before, "wav2vec2", "study length")
    lines = read_metrics(before / METRICS)
    audio = sum(line["audio_seconds"] for line in lines)
    # The first stretch compiles.
    paces = [line["round_seconds"] / line["audio_seconds"] for line in lines[1:]]
    return {
        "audio_seconds": audio,
        "updates": sum(line["local_steps"] for line in lines),
        "padded_share": float(np.mean([line["padded_share"] for line in lines])),
        "seconds_per_audio_second": float(np.median(paces)),
        "heldout_loss": lines[-1]["heldout_contrastive"],
        "heldout_accuracy": lines[-1]["heldout_accuracy"],
        **{name: value for name, value in recognised(after).items() if name in ("wer", "cer", "loss")},
    }


def costs(crop_seconds: float) -> dict[str, float]:
    """Count the operations of a step for each second of its crops, and the temporary bytes that XLA plans."""
    from experiments.costs.step.module_costs import step_costs
    from experiments.costs.step.training_step import StepSettings, build

    settings = StepSettings(model="tiny", seconds=crop_seconds, batch=round(BATCH_SECONDS / crop_seconds))
    step = build(settings)
    planned = step.compile().memory_analysis()
    return {
        "crop_seconds": crop_seconds,
        "batch": settings.batch,
        "flops_per_crop_second": step_costs(settings.config, step).total.flops / BATCH_SECONDS,
        "temporary_bytes": float(planned.temp_size_in_bytes),
    }


def provenance(cells: list[Cell]) -> dict[str, Any]:
    """Record this command, with the commits and cores of the processes that trained."""
    runs = [read_config(cell.out)["provenance"] for cell in cells]
    return record_provenance("study length") | {
        name: sorted({run[of] for run in runs})
        for name, of in (("cell_commits", "commit"), ("cores", "cores"))
    }


def write(result: dict[str, Any], out: Path) -> str:
    """Write length.json, length.md and length.png, and return the text of length.md."""
    from experiments.study import length_report

    return write_report(out, "length", result, length_report.markdown, length_report.draw)
