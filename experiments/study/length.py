"""`w2v-jax study length`: pre-training on clips cut to 1, 2, 4 and 8 s at equal audio (section 3.2)."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.options import arguments
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance
from experiments.report.statistics import over_seeds
from experiments.runs.folder import read_config, read_metrics
from experiments.study.cells import Cell, check_counts, run_cells
from experiments.study.federated import SCALES, recognised
from w2v_jax.config import SAMPLE_RATE_HZ

CROP_SECONDS = (1.0, 2.0, 4.0, 8.0)
BATCH_SECONDS = 8.0  # crops of a batch together, whatever their length


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Audio that every pre-training hears, in how many evaluated stretches, and the fine-tuning after it."""

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
    """Pre-train on crops of 1, 2, 4 and 8 s at equal audio; cost and error rates. Continues when rerun.

    example: w2v-jax study length --data corpora/en --scale small
    """

    data: Path
    """A Common Voice locale's folder or its parent, with transcripts."""
    scale: Literal["smoke", "small"] = "small"
    """small: some four minutes for each of 4 lengths a seed on two cores. smoke: to see it work."""
    seeds: int = 3
    """Seeds 0, 1, ... of every length."""
    jobs: int = 1
    """Runs side by side; their times are then those of a shared machine."""
    out: Path = Path("runs/length")
    """Folder for length.json, length.md and length.png, and for the runs in `cells`."""


def steps_of(crop_seconds: float, clip_seconds: np.ndarray, scale: Scale) -> int:
    """Updates a stretch, so that all lengths hear the same audio: long crops are short of it, as clips end."""
    batch = round(BATCH_SECONDS / crop_seconds)
    heard = batch * float(np.minimum(clip_seconds, crop_seconds).mean())
    return max(1, round(scale.audio_seconds / scale.rounds / heard))


def cells_of(options: LengthArguments, clip_seconds: np.ndarray) -> list[tuple[float, int, Cell, Cell]]:
    """(crop seconds, seed, pre-training, fine-tuning)."""
    scale, found = SCALES_OF_LENGTH[options.scale], []
    for seed in range(options.seeds):
        for crop in CROP_SECONDS:
            name = f"{crop:g}s-{seed}"
            common = ("--data", str(options.data), "--seed", str(seed))
            words = ["pretrain", "--preset", "centralised", "--model", "tiny", "--rounds", str(scale.rounds)]
            words += ["--crop-seconds", f"{crop:g}", "--batch-size", str(round(BATCH_SECONDS / crop))]
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
    # Encoders before what is made of them: cells of one call may run side by side.
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
    write(result, options.out)
    print((options.out / "length.md").read_text(encoding="utf-8"))
    print(f"written: {options.out / 'length.json'}, length.md, length.png")


def row(before: Path, after: Path) -> dict[str, Any]:
    """What one length and seed came to."""
    lines = read_metrics(before / "metrics.jsonl")
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
    """A step's operations a second of its crops, and the memory that XLA plans for it beyond its state."""
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
    """This command's, with commits of the processes that trained."""
    runs = [read_config(cell.out)["provenance"] for cell in cells]
    return record_provenance("study length") | {
        name: sorted({run[of] for run in runs})
        for name, of in (("cell_commits", "commit"), ("cores", "cores"))
    }


def write(result: dict[str, Any], out: Path) -> None:
    """Write length.json, length.md and length.png."""
    write_json(out / "length.json", result)
    draw(result, out / "length.png")
    replace_file(out / "length.md", markdown(result))


def by_length(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A value over seeds, length by length."""
    return [
        over_seeds([row[name] for row in result["rows"] if row["crop_seconds"] == crop])
        for crop in CROP_SECONDS
    ]


def draw(result: dict[str, Any], path: Path) -> None:
    """Losses, error rates and costs against the length of crops."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(17, 4.2), layout="constrained")
    panels = (
        ("heldout_loss", "Held-out contrastive loss", "nats (crops of 2.5 s)", 1.0),
        ("cer", "CER on test after fine-tuning", "%", 100.0),
        ("loss", "Test loss after fine-tuning", "nats a character", 1.0),
        ("seconds_per_audio_second", "Time", "seconds a second of audio", 1.0),
    )
    for axis, (name, title, unit, scale) in zip(axes, panels, strict=True):
        for crop, found in zip(CROP_SECONDS, by_length(result, name), strict=True):
            axis.plot(
                [crop] * len(found["by_seed"]),
                [scale * value for value in found["by_seed"]],
                "o",
                color="C0",
                alpha=0.6,
            )
        axis.plot(CROP_SECONDS, [scale * found["mean"] for found in by_length(result, name)], "-", color="C0")
        axis.set(title=title, xlabel="crop, s", ylabel=unit, xscale="log")
        axis.set_xticks(CROP_SECONDS, [f"{crop:g}" for crop in CROP_SECONDS])
        axis.minorticks_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def markdown(result: dict[str, Any]) -> str:
    """What readers see."""
    from experiments.report.statistics import mean_spread
    from experiments.report.tables import table
    from experiments.study.curves import cores_of

    def cells(name: str, index: int, digits: int, scale: float = 1.0) -> str:
        return mean_spread(by_length(result, name)[index]["by_seed"], digits, scale)

    made = result["provenance"]
    rows, prices = [], []
    for index, (crop, cost) in enumerate(zip(CROP_SECONDS, result["costs"], strict=True)):
        rows.append(
            (
                f"{crop:g}",
                str(cost["batch"]),
                cells("updates", index, 0),
                cells("audio_seconds", index, 0),
                cells("padded_share", index, 0, 100),
                cells("heldout_loss", index, 3),
                cells("heldout_accuracy", index, 3),
                cells("cer", index, 1, 100),
                cells("wer", index, 1, 100),
                cells("loss", index, 3),
            )
        )
        prices.append(
            (
                f"{crop:g}",
                f"{cost['flops_per_crop_second'] / 1e9:.3f}",
                f"{cost['temporary_bytes'] / 2**20:.1f}",
                cells("seconds_per_audio_second", index, 4),
            )
        )
    return "\n\n".join(
        [
            "# Length of the clips that pre-training hears",
            f"Section 3.2 of the paper asks what shorter clips do. `tiny` is pre-trained centrally on crops of "
            f"`{Path(result['data']).parent.name}/{Path(result['data']).name}` (mean clip "
            f"{result['clip_seconds_mean']:.1f} s), {BATCH_SECONDS:g} s of crops a batch, "
            f"{result['scale']['audio_seconds']:.0f} s of audio in all, then fine-tuned. {result['seeds']} seeds, ± "
            "their standard deviation.",
            "![figure](length.png)",
            "\n".join(f"- {sentence}" for sentence in sentences(result)),
            table(
                ("crop, s", "batch", "updates", "audio, s", "padding, %", "held-out loss", "accuracy", "CER, %", "WER, %", "test loss"),
                rows,
            ),
            table(("crop, s", "GFLOPs a second of crops", "temporary memory, MiB", "seconds a second of audio"), prices),
            "Held-out loss is always on crops of 2.5 s. Operations and memory are of one update: counted from the "
            "traced program, and planned by XLA for this backend beyond parameters and optimizer state.",
            f"Commit {', '.join(made['cell_commits'])}; {made['device']}, {cores_of(made)}, {result['jobs']} side by side.\n\n```\n{made['command']}\n```",
        ]
    ) + "\n"  # fmt: skip


def sentences(result: dict[str, Any]) -> list[str]:
    """What the numbers say."""
    found = []
    for name, words, digits, scale in (
        ("cer", "CER after fine-tuning, in %", 1, 100.0),
        ("loss", "test loss after fine-tuning", 3, 1.0),
        ("heldout_loss", "held-out contrastive loss", 3, 1.0),
    ):
        values = by_length(result, name)
        order = np.argsort([value["mean"] for value in values])
        best, worst = int(order[0]), int(order[-1])
        gap = values[worst]["mean"] - values[best]["mean"]
        spreads = [value["spread"] for value in values if value["spread"] is not None]
        verdict = "one seed has no spread to hold it against"
        if spreads:
            more = "more" if gap > max(spreads) else "no more"
            verdict = f"{more} than the largest spread of a length"
        found.append(
            f"The lowest {words} is that of {CROP_SECONDS[best]:g} s ({scale * values[best]['mean']:.{digits}f}), the "
            f"highest that of {CROP_SECONDS[worst]:g} s ({scale * values[worst]['mean']:.{digits}f}): a difference of {scale * gap:.{digits}f}, "
            f"{verdict}."
        )
    updates = [value["mean"] for value in by_length(result, "updates")]
    found.append(
        f"At equal audio {CROP_SECONDS[-1]:g} s gets {updates[-1] / updates[0]:.2f} times the updates of {CROP_SECONDS[0]:g} s, "
        "with less speech in each, as clips end before their crops do."
    )
    costs_of = result["costs"]
    found.append(
        f"A second of crops costs {costs_of[-1]['flops_per_crop_second'] / costs_of[0]['flops_per_crop_second']:.2f} times "
        f"the operations, and a batch {costs_of[-1]['temporary_bytes'] / costs_of[0]['temporary_bytes']:.2f} times the memory, "
        f"at {CROP_SECONDS[-1]:g} s as at {CROP_SECONDS[0]:g} s."
    )
    return found
