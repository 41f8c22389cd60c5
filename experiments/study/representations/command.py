"""`w2v-jax study representations`: pre-train in several ways, and probe what the frozen encoders know."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from experiments.options import arguments
from experiments.pretrain.recipes import RECIPES
from experiments.probe.metrics import metric_of
from experiments.process.files import read_json
from experiments.process.provenance import record_provenance
from experiments.report.writer import write_report
from experiments.runs.folder import METRICS, read_config, read_metrics
from experiments.study.cells import check_counts, run_cells
from experiments.study.representations import arms as plan
from experiments.study.representations import results
from w2v_jax.config import PRESETS, SAMPLE_RATE_HZ


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepresentationsArguments:
    """Pre-train encoders in several ways at equal audio; probe what they know. Continues when rerun.

    example: w2v-jax study representations --data corpora/ar --seeds 5
    """

    data: Path
    """A Common Voice locale's folder with train, dev and test of different speakers, whose `sentence` is a
    word, or for characters a transcript."""
    task: plan.StudyTask = "keywords"
    """Score of the probes. keywords scores the accuracy of words. characters scores the character error rate
    of probes with CTC; then all runs hear crops of the same length, which the clips' lengths decide."""
    encoders: tuple[Literal["best-rq", "wav2vec2", "wav2vec2-waveform"], ...] = ("best-rq", "wav2vec2")
    """Encoders to pre-train: best-rq-tiny, log-mel-tiny (wav2vec2) and tiny (wav2vec2-waveform)."""
    trainings: tuple[Literal["centralised", "ten clients", "loss-weighted", "speakers", "diloco"], ...] = (
        plan.TRAININGS
    )
    """Ways to pre-train. ten clients is FedAvg. loss-weighted is ten clients, weighted by their losses. With
    speakers, every speaker is a client, and ten take part in a round. diloco is ten clients with an outer
    step of Nesterov momentum; it has four times the rounds, with a quarter of the steps in each."""
    scale: Literal["smoke", "small"] = "small"
    """Size of the runs. On two cores, small takes four to six minutes a run with words of 1 s, twice as long
    with crops of 2 s, and five minutes a probe. smoke is a trial of minutes."""
    seeds: int = 5
    """Number of seeds of every arm; they are 0, 1, and so on."""
    jobs: int = 1
    """Number of runs side by side; they share the machine, so each takes longer."""
    out: Path = Path("runs/representations")
    """Folder for representations.json, .md and .png; the runs are in its folder `cells`."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(RepresentationsArguments, argv, "w2v-jax study representations")
    check_counts(options)
    from experiments.data import corpora

    corpora.check_transcripts(str(options.data))
    scale, data = plan.SCALES[options.scale], str(options.data)
    arms, metric = plan.arms(options.encoders, options.trainings), metric_of(options.task)
    crop = None
    if options.task == "characters" and "--seconds" not in scale.words:
        crop = shared_crop(data, [plan.MODELS[name] for name in options.encoders])
        print(f"crops of {crop:g} s in every run")
    # Seed by seed, so that an interrupted study has whole seeds.
    runs = {
        (arm, seed): plan.pretraining(arm, seed, data, scale, options.out, crop)
        for seed in range(options.seeds)
        for arm in arms
    }
    seconds = run_cells(list(runs.values()), "pre-training", options.jobs)
    probes = [
        plan.probing([runs[arm, seed].out for arm in arms], seed, data, scale, options.out, options.task)
        for seed in range(options.seeds)
    ]
    seconds |= run_cells(probes, "probing", options.jobs)
    found = [read_json(probe.out / "result.json") for probe in probes]
    rows = [
        results.row(arm, seed, cell.out, found[seed], metric) | heard(cell.out, seconds.get(cell.name))
        for (arm, seed), cell in runs.items()
    ]
    result = {
        "scale": {"name": options.scale} | dataclasses.asdict(scale),
        "models": {name: plan.MODELS[name] for name in options.encoders},
        "data": data,
        "task": options.task,
        "seeds": options.seeds,
        "clips": found[0]["clips"],
        "rows": rows,
        "baselines": results.baselines(
            arms, [{arm: runs[arm, s].out for arm in arms} for s in range(options.seeds)], found, metric
        ),
        "provenance": record_provenance("study representations")
        | {"cell_commits": sorted({read_config(cell.out)["provenance"]["commit"] for cell in runs.values()})},
    }
    result |= {"arms": results.summaries(result), "comparisons": results.comparisons(result)}
    print(write(result, options.out))
    print(f"written: {options.out / 'representations.json'}, representations.md, representations.png")


def shared_crop(data: str, models: Sequence[str]) -> float:
    """Choose one length of crops for all runs, in seconds: else arms might hear different amounts of audio.

    Args:
        data: the corpus.
        models: presets that are trained.

    Raises:
        CorpusError: no such corpus.
    """
    from experiments.data import corpora
    from experiments.pretrain import crops
    from w2v_jax.data.common_voice import lengths
    from w2v_jax.data.release.assignment import UNION
    from w2v_jax.data.synthetic import SyntheticConfig

    with corpora.opened(data, SyntheticConfig()) as source:
        seconds = lengths(source.load(UNION).clips) / SAMPLE_RATE_HZ
    longest = min(RECIPES[model].crop_seconds for model in models)
    return crops.choose(longest, [seconds], max(crops.shortest_crop(PRESETS[model]) for model in models))


def heard(run: Path, seconds: float | None) -> dict[str, Any]:
    """Add up the audio that a run heard, its pace, and the padding of its batches."""
    lines = read_metrics(run / METRICS)
    audio = [line["audio_seconds"] for line in lines]
    paces = [line["audio_seconds"] / line["round_seconds"] for line in lines[1:] or lines]
    return {
        "audio_seconds": sum(audio),
        "audio_seconds_a_second": sorted(paces)[len(paces) // 2],  # the first round compiles
        "padded_share": sum(line["padded_share"] for line in lines) / len(lines),
        "bytes_up": sum(line["bytes_up"] for line in lines),
        "seconds": seconds,
    }


def write(result: dict[str, Any], out: Path) -> str:
    """Write representations.json, .md and .png, and return the text."""
    from experiments.study.representations import report

    return write_report(out, "representations", result, report.markdown, report.draw)
