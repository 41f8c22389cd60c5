"""`w2v-jax bench data`: time, memory and throughput of a corpus of Common Voice's size."""

import dataclasses
import io
import json
import os
import resource
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.child_process import run_in_child
from experiments.process.provenance import record_provenance
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.units import percent
from experiments.report.writer import write_report

POOL = 256  # different clips; larger corpora repeat them under other names
SAMPLE_RATE_HZ = 48_000
LONG_CLIPS, LONG_SECONDS = 3000, 5.0
LIMITS = (
    "A few hundred clips of noise are repeated under many names. The tarball is not compressed. Files are "
    "read shortly after they were written, from the page cache and not from a disk. Peak memory is that of "
    "the whole process, jax and its imports included."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchDataArguments:
    """Generate a tarball in Common Voice's layout, prepare it, open it, partition it and read its batches.

    example: w2v-jax bench data --out bench/data --clips 200000 --speakers 6000
    """

    out: Path
    """Folder for data.json and data.md. The corpora are made in it and removed afterwards."""
    clips: int = 200_000
    """Number of clips of the large corpus; they last 0.3 to 0.7 s."""
    speakers: int = 6000
    """Number of speakers of the large corpus."""


def write_tarball(path: Path, clips: int, speakers: int, seconds: tuple[float, float]) -> None:
    """Write a release of mp3 clips at 48 kHz, with unequal numbers of clips by speaker.

    Args:
        path: the tarball.
        clips: clips of all speakers.
        speakers: speakers, each with at least one clip.
        seconds: shortest and longest clip.
    """
    import soundfile

    rng = np.random.default_rng(0)
    pool = []
    for _ in range(min(POOL, clips)):
        samples = np.cumsum(rng.standard_normal(int(rng.uniform(*seconds) * SAMPLE_RATE_HZ))) * 1e-3
        out = io.BytesIO()
        soundfile.write(out, np.clip(samples, -0.9, 0.9), SAMPLE_RATE_HZ, format="MP3")
        pool.append(out.getvalue())
    weights = rng.lognormal(0.0, 1.0, speakers)
    owner = rng.choice(speakers, clips, p=weights / weights.sum())
    owner[:speakers] = np.arange(min(speakers, clips))  # every speaker has a clip
    names = [f"common_voice_xx_{number:08d}.mp3" for number in range(clips)]
    rows = [f"{owner[n]:0128x}\t{name}\tSentence {n}\t\t\t\txx\t\n" for n, name in enumerate(names)]
    header = "client_id\tpath\tsentence\tage\tgender\taccents\tlocale\tsegment\n"
    files = {
        "validated": rows,
        "train": rows[: clips // 2],
        "dev": rows[clips // 2 : clips // 2 + clips // 20],
        "test": rows[-clips // 20 :],
    }
    with tarfile.open(path, "w") as archive:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(f"cv-corpus-0.0/xx/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        for number, name in enumerate(names):
            add(f"clips/{name}", pool[number % len(pool)])
        for split, lines in files.items():
            add(f"{split}.tsv", (header + "".join(lines)).encode())


def prepare(tarball: str, out: str) -> dict[str, Any]:
    """Child: prepare a tarball with a thread per core."""
    from w2v_jax.data.prepared.preparation import prepare

    prepare(Path(tarball), Path(out), workers=xla_flags.usable_cores())
    return {}


def first_batch(folder: str) -> dict[str, Any]:
    """Child: open a corpus, partition it into 100 and 10 clients, and read the batches of 20 of the 100."""
    started = time.perf_counter()
    from experiments.data import partitions
    from experiments.pretrain.clients import LocalWork, SpeechClients
    from fed import sampling
    from w2v_jax.data.prepared.corpus import load_prepared

    corpus = load_prepared(Path(folder))
    result: dict[str, Any] = {"clips": len(corpus.clips), "speakers": len(corpus.speakers())}
    for clients in (100, 10):
        began = time.perf_counter()
        dealt = partitions.deal(corpus.clips, "balanced", clients, 0)
        seconds = partitions.summary(corpus.clips, dealt)["seconds_min_median_max"]
        result[f"partition_{clients}_seconds"] = time.perf_counter() - began
        result[f"partition_{clients}_spread"] = (seconds[2] - seconds[0]) / seconds[1]
        if clients == 100:
            work = LocalWork(batch_size=8, crop_samples=32_000, steps=4, epochs=None, loss_window="round")
            source = SpeechClients(partitions.clips_of_clients(corpus.clips, dealt), work, 0)
            cohort = sampling.uniform(source.client_ids(), 20, 0)(0)
            next(source.client_batches(cohort[0], 0))
            result["first_batch_seconds"] = time.perf_counter() - started
            for name in cohort:
                list(source.client_batches(name, 0))
            result["cohort_seconds"] = time.perf_counter() - started
    return result


def throughput(folder: str) -> dict[str, Any]:
    """Child: measure seconds of audio a second on one core, for random crops and for clips in buckets."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from w2v_jax.data.batches.crops import CropBatches
    from w2v_jax.data.batches.pipeline import BucketBatches, stream
    from w2v_jax.data.prepared.corpus import load_prepared

    clips = load_prepared(Path(folder)).clips
    crops = CropBatches(clips, batch_size=16, crop_samples=10 * 16_000, identity=(1,))
    buckets = BucketBatches(
        clips, batch_samples=16 * 5 * 16_000, cap_samples=10 * 16_000, num_buckets=8, identity=(1,)
    )
    result: dict[str, Any] = {"padded_share": buckets.padded_share}
    for name, batches in (("crops", crops), ("buckets", buckets)):
        rates = []
        stream_of_batches = stream(batches, threads=1)
        next(stream_of_batches)
        for _ in range(5):
            audio, began = 0.0, time.perf_counter()
            while time.perf_counter() - began < 2.0:
                audio += float(next(stream_of_batches).num_samples.sum()) / 16_000
            rates.append(audio / (time.perf_counter() - began))
        result[name] = {"audio_seconds_per_second": float(np.median(rates)), "samples": rates}
    return result


def measured(name: str, *words: str) -> dict[str, Any]:
    """Child: call one of the functions above and add its wall time and peak memory."""
    started = time.perf_counter()
    result = globals()[name](*words)
    result["wall_seconds"] = time.perf_counter() - started
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux: KiB
    return result


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(BenchDataArguments, argv, "w2v-jax bench data")
    if not 100 <= options.speakers <= options.clips:
        raise UsageError("--speakers must be at least 100 and at most --clips")
    options.out.mkdir(parents=True, exist_ok=True)
    import tempfile

    result: dict[str, Any] = {"clips": options.clips, "speakers": options.speakers, "limits": LIMITS}
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        tarball, large = Path(folder) / "large.tar", Path(folder) / "large"
        print("writing a tarball ...", flush=True)
        write_tarball(tarball, options.clips, options.speakers, (0.3, 0.7))
        result["tarball_bytes"] = tarball.stat().st_size
        for name, words in (
            ("prepare", ("prepare", str(tarball), str(large))),
            ("first_batch", ("first_batch", str(large))),
            ("throughput_short", ("throughput", str(large))),
        ):
            result[name] = run_in_child(measured, *words)
            print(f"{name}: {json.dumps(result[name])}", flush=True)
        tarball.unlink()
        long_tar, long_folder = Path(folder) / "long.tar", Path(folder) / "long"
        write_tarball(long_tar, LONG_CLIPS, 100, (LONG_SECONDS - 2, LONG_SECONDS + 2))
        result["prepare_long"] = run_in_child(measured, "prepare", str(long_tar), str(long_folder))
        result["throughput_long"] = run_in_child(measured, "throughput", str(long_folder))
        print(f"throughput_long: {json.dumps(result['throughput_long'])}", flush=True)
    result["provenance"] = record_provenance("bench data", 0)
    write_report(options.out, "data", result, markdown)
    print(f"written: {options.out / 'data.json'}, data.md")


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    first, prepared = result["first_batch"], result["prepare"]
    rows = [
        ("clips, speakers", f"{first['clips']:,}, {first['speakers']:,}"),
        ("prepare", f"{prepared['wall_seconds']:.0f} s, peak {prepared['peak_bytes'] / 1e6:.0f} MB"),
        ("from start to the first batch", f"{first['first_batch_seconds']:.1f} s"),
        ("open, partition, 20 of 100 clients' batches", f"peak {first['peak_bytes'] / 1e6:.0f} MB"),
        *(
            (
                f"seconds per client, {clients} clients",
                f"(max - min) / median {percent(first[f'partition_{clients}_spread'], 3)}",
            )
            for clients in (10, 100)
        ),
    ]
    for name, title in (("throughput_short", "0.3 to 0.7 s"), ("throughput_long", "3 to 7 s")):
        for kind in ("crops", "buckets"):
            rate = result[name][kind]["audio_seconds_per_second"]
            rows.append((f"audio a second on one core, clips of {title}, {kind}", f"{rate:,.0f} s"))
        rows.append((f"padded share in buckets, clips of {title}", percent(result[name]["padded_share"], 1)))
    parts = [
        "# Data at Common Voice's size",
        table(("quantity", "measured"), rows),
        result["limits"],
        footer(result["provenance"]),
    ]
    return "\n\n".join(parts) + "\n"
