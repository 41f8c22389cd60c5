"""The pretrain command end to end, in processes of its own: runs, is killed, continues."""

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments.cli import main as cli
from experiments.process.files import read_json
from experiments.runs.folder import RunFolder, read_metrics
from tests.experiments.runs.test_events import assert_events_are_metrics
from tests.xla import fast_flags
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus

COLUMNS = {
    "round", "loss", "contrastive", "diversity", "code_perplexity", "prob_perplexity", "accuracy",
    "heldout_loss", "heldout_accuracy", "chance_accuracy", "clients", "audio_seconds", "round_seconds",
    "audio_seconds_a_second", "padded_share", "skipped_clients", "bytes_up", "bytes_down",
}  # fmt: skip
SMALL_RUN = [
    "--local-steps", "2", "--batch", "2", "--seconds", "0.8", "--checkpoint-every", "2",
    "--evaluate-every", "2", "--heldout-speakers", "2", "--seed", "3",
]  # fmt: skip
CLIENTS = ["--clients", "4", "--clients-per-round", "3", "--preset", "hundred-clients"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    locale = write_corpus(folder, SyntheticConfig(speakers=7, clips_per_speaker=3, words=20, seed=4))
    clips = locale / "clips"
    noise = np.random.default_rng(0).standard_normal(16_000) * 0.1
    (clips / "synthetic_0001_0001.flac").unlink()
    cut = io.BytesIO()
    soundfile.write(cut, noise, 16_000, format="WAV")
    (clips / "synthetic_0002_0001.flac").write_bytes(cut.getvalue()[:9_000])
    (clips / "synthetic_0003_0001.flac").write_bytes(b"")
    soundfile.write(clips / "synthetic_0004_0001.flac", np.zeros(16_000), 16_000)
    soundfile.write(clips / "synthetic_0005_0001.flac", noise[:300], 16_000)
    return folder


def command(corpus, out, *options):
    return [
        sys.executable, "-m", "experiments", "pretrain",
        "--data", str(corpus), "--out", str(out), *SMALL_RUN, *options,
    ]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def environment():
    """Two lanes, and quick compilation."""
    changes = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": fast_flags(2),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setenv(name, value)
        yield


def run(*args):
    done = subprocess.run(command(*args), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_here(*args):
    """Run the command in this process, on two of its devices; what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert cli.run_command("pretrain", [*command(*args)[4:], "--lanes", "2"]) == 0
    return printed.getvalue()


def parameters(out: Path) -> bytes:
    """The final checkpoint's arrays, as bytes."""
    import jax
    import orbax.checkpoint as ocp

    step = max(int(p.name) for p in (out / "checkpoints").iterdir() if p.name.isdigit())
    with ocp.CheckpointManager((out / "checkpoints").absolute()) as manager:
        restored = manager.restore(step, args=ocp.args.StandardRestore())
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(restored))


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    printed = run(corpus, out, *CLIENTS, "--rounds", "4")
    return out, printed


def test_a_run_leaves_metrics_checkpoints_and_a_report(finished):
    out, printed = finished
    lines = read_metrics(out / "metrics.jsonl")
    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[-1]) >= COLUMNS
    assert COLUMNS - set(lines[0]) == {"heldout_loss", "heldout_accuracy", "chance_accuracy"}
    assert lines[0]["clients"] == 3
    # 3 clients x 2 steps x 2 crops of at most 0.8 s.
    assert 0 < lines[0]["audio_seconds"] <= 9.6 + 1e-6
    # Two lanes hold four clients, one of them padding: 4 x 2 x 2 slots of 0.8 s.
    assert lines[0]["padded_share"] == pytest.approx(1 - lines[0]["audio_seconds"] / 12.8)
    assert sum(lines[0]["client_weights"]) == pytest.approx(1.0)
    assert lines[0]["bytes_up"] == lines[0]["bytes_down"] > 3 * 4 * 700_000
    assert lines[0]["updates"] == 2
    assert "round 4/4" in printed
    assert "left" in printed
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    html = (out / "report.html").read_text()
    assert "data:image/png;base64," in html
    assert 'src="curves.png"' not in html
    provenance = read_json(out / "config.json")["provenance"]
    assert {"command", "commit", "versions", "backend", "xla_flags", "seed"} <= set(provenance)


def test_skipped_clips_are_listed(finished):
    out, _ = finished
    clips = read_json(out / "clips.json")
    reasons = ("missing", "truncated", "empty", "silent", "too short")
    assert clips["skipped_by_reason"] == dict.fromkeys(reasons, 1)
    found = {skip["path"]: skip["reason"] for skip in clips["skipped"]}
    assert found == {f"synthetic_{i:04d}_0001.flac": reason for i, reason in enumerate(reasons, start=1)}
    held = read_json(out / "partition.json")["speakers"]
    speakers = [name for names in held.values() for name in names]
    assert len(speakers) == len(set(speakers)) == 5
    assert not set(speakers) & set(clips["heldout_speakers"])


@pytest.mark.slow
def test_the_same_command_again_changes_nothing(corpus, finished):
    out, _ = finished
    before = parameters(out), (out / "metrics.jsonl").read_text()
    run(corpus, out, *CLIENTS, "--rounds", "4")
    assert (parameters(out), (out / "metrics.jsonl").read_text()) == before


@pytest.mark.slow
def test_a_finished_run_goes_on_to_more_rounds(corpus, finished, tmp_path, capfd):
    out, _ = finished
    longer = tmp_path / "longer"
    shutil.copytree(out, longer)
    said = run(corpus, longer, *CLIENTS, "--rounds", "6")
    assert "began with --rounds 4 and now has --rounds 6: from round 5 on" in " ".join(said.split())
    lines, before = untimed(longer), untimed(out)
    assert [line["round"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[:4] == before
    assert "heldout_loss" in lines[-1]
    config = read_json(longer / "config.json")
    assert config["settings"]["rounds"] == 6
    assert config["lengthened"] == [{"planned": 4, "after": 4}]
    assert "4 until round 4, then 6" in (longer / "report.md").read_text()
    assert_events_are_metrics(longer, "round")
    # The longer plan is now the run's own: the same command finds it, a shorter one is refused.
    run(corpus, longer, *CLIENTS, "--rounds", "6")
    assert read_json(longer / "config.json") == config
    shorter = subprocess.run(
        command(corpus, longer, *CLIENTS, "--rounds", "5"), capture_output=True, text=True
    )
    assert shorter.returncode == 2
    assert "rounds: 6 there, 5 here" in shorter.stderr


def kill_after(process, metrics: Path, lines: int) -> None:
    """SIGKILL once so many rounds are in the metrics."""
    limit = time.monotonic() + 240
    while time.monotonic() < limit and process.poll() is None:
        if metrics.exists() and len(metrics.read_text().splitlines()) >= lines:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def start_and_kill(corpus, out: Path, lines: int) -> None:
    """A run of four rounds, killed after some."""
    argv = command(corpus, out, *CLIENTS, "--rounds", "4")
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_after(process, out / "metrics.jsonl", lines)


def untimed(folder: Path) -> list[dict]:
    """Metrics but for their times."""
    timed = {"round_seconds", "evaluation_seconds", "audio_seconds_a_second"}
    lines = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


# Before the first checkpoint (made every two rounds), past one, and about the time of the last.
@pytest.mark.parametrize(
    "lines",
    [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)],
)
def test_a_killed_run_continues_to_the_same_bits(corpus, finished, tmp_path, lines):
    out, _ = finished
    killed = tmp_path / "killed"
    start_and_kill(corpus, killed, lines)
    assert lines <= len(read_metrics(killed / "metrics.jsonl"))
    run(corpus, killed, *CLIENTS, "--rounds", "4")
    assert parameters(killed) == parameters(out)
    assert untimed(killed) == untimed(out)
    assert_events_are_metrics(killed, "round")
    assert len((killed / "starts.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_nothing_is_lost(corpus, finished, tmp_path):
    out, _ = finished
    filled = tmp_path / "filled"
    start_and_kill(corpus, filled, 3)
    # 200 kB a file; a checkpoint's arrays take more.
    code = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); "
        "runpy.run_module('experiments', run_name='__main__')"
    )
    argv = command(corpus, filled, *CLIENTS, "--rounds", "4")
    argv[1:3] = ["-c", code]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("w2v-jax: error: ")]
    assert len(errors) == 1
    assert "free some space and run the same command again" in errors[0]
    assert "Traceback" not in done.stderr, done.stderr
    run(corpus, filled, *CLIENTS, "--rounds", "4")
    assert parameters(filled) == parameters(out)
    assert untimed(filled) == untimed(out)


@pytest.mark.slow
def test_loss_weighting_and_its_temperature_reach_the_weights(corpus, tmp_path):
    options = ["--aggregation", "loss-weighted", "--temperature", "0.05"]
    run_here(corpus, tmp_path / "run", "--preset", "ten-clients", "--clients", "4", "--rounds", "1", *options)
    (line,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    scores = np.exp(-np.array(line["client_losses"]) / 0.05)
    np.testing.assert_allclose(line["client_weights"], scores / scores.sum(), rtol=1e-3)
    assert line["effective_clients"] == pytest.approx(1 / np.square(line["client_weights"]).sum())
    assert len(set(line["client_losses"])) == 4


@pytest.mark.slow
def test_a_method_of_less_memory_trains_the_same_and_continues(corpus, tmp_path):
    plain, lean = tmp_path / "plain", tmp_path / "lean"
    options = [*CLIENTS, "--rounds", "2"]
    run(corpus, plain, *options)
    said = run(corpus, lean, *options, "--method", "exact", "--optimizer", "adamw")
    assert "method exact" in said
    lines = [read_metrics(out / "metrics.jsonl") for out in (plain, lean)]
    for before, after in zip(*lines, strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-4)
    before, after = (of_run[-1]["heldout_loss"] for of_run in lines)
    assert after == pytest.approx(before, rel=1e-4)
    assert read_json(lean / "config.json")["settings"]["method"] == "exact"
    # A budget finds a run that is there, and goes on with its method; 1 B would else be refused.
    said = run(corpus, lean, *options, "--memory-budget", "1B")
    assert "holds a run with method exact" in said


@pytest.mark.slow
def test_a_budget_that_nothing_fits_is_said(corpus, tmp_path):
    out = tmp_path / "run"
    done = subprocess.run(
        command(corpus, out, *CLIENTS, "--rounds", "1", "--memory-budget", "1MB"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "too little: the leanest exact method" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "exct"], "did you mean exact"),
        (["--method", "layerwise"], "layerwise is for single steps"),
        (["--method", "exact", "--memory-budget", "4GB"], "either --method or --memory-budget"),
        (["--memory-budget", "much"], "such as 4GB"),
        (["--method", "truncated-0.05"], "fewer than two mask spans"),
    ],
)
def test_methods_that_cannot_be(corpus, tmp_path, options, words):
    from experiments.cli.main import run_command

    out = tmp_path / "run"
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert run_command("pretrain", ["--data", str(corpus), "--out", str(out), *options]) == 2
    assert words in said.getvalue()
    assert not out.exists()


def test_a_run_of_before_methods_had_names_continues(tmp_path):
    """Its config.json has one setting for recomputation, and lacks all the others."""
    from experiments.pretrain.command import ABSENT_SETTINGS, PretrainArguments, resolve

    settings = resolve(PretrainArguments(rounds=3))
    folder = RunFolder(tmp_path / "run", settings, {}, absent=ABSENT_SETTINGS)
    folder.begin()
    folder.close()
    path = tmp_path / "run" / "config.json"
    held = read_json(path)
    model = held["settings"]["model_config"]
    for name in ("rematerialise_cnn", "rematerialise_layers", "encoder_block_frames", "micro_batch"):
        del model[name]
    model["rematerialise"] = False
    del held["settings"]["method"], held["settings"]["optimizer"], held["settings"]["loss_window"]
    path.write_text(json.dumps(held))
    again = RunFolder(tmp_path / "run", settings, {}, absent=ABSENT_SETTINGS, keeps=("loss_window",))
    again.close()
    # Its weights follow the losses that they followed when it began.
    assert (settings["loss_window"], again.settings["loss_window"]) == ("round", "last-epoch")
    assert again.planned_before is None


def test_the_chunk_of_an_accelerator_is_measured_once_and_kept(corpus, tmp_path, monkeypatch):
    import jax

    from experiments.pretrain.command import PretrainArguments, resolve
    from experiments.pretrain.run import Pretraining
    from fed import chunks, server

    settings = resolve(
        PretrainArguments(
            data=corpus, clients=4, lanes=1, batch_size=2, crop_seconds=0.7, local_steps=2,
            heldout_speakers=2, max_update_norm=3.0,
        )
    )  # fmt: skip
    built = []

    def measure(build, state, clients_per_lane, steps, memory_bytes):
        assert (clients_per_lane, steps) == (settings["clients_per_round"], 2)
        for chunk in (1, 2):
            engine = build(chunk)
            built.append((engine.layout.chunk, engine.batch.waveform.shape, engine.block_steps))
        return [chunks.Trial(1, 10, 4.0), chunks.Trial(2, 20, 1.0)]

    def settled():
        folder = RunFolder(tmp_path / "run", settings, {})
        made = Pretraining(settings, folder)
        state = jax.jit(lambda key: server.init(made.objective, made.algorithm, key))(jax.random.key(0))
        made._settle_chunk(state)
        folder.close()
        return made

    monkeypatch.setattr(chunks, "measure", measure)
    made = settled()
    assert (made.layout.chunk, made.config.convolution_form) == (2, "product")
    assert built == [(1, (2, 11_200), 2), (2, (2, 11_200), 2)]
    kept = read_json(tmp_path / "run" / "layout.json")
    assert (kept["lanes"], kept["chunk"], kept["trials"][1]["cohort_seconds"]) == (1, 2, 1.0)
    # A run that continues asks nobody.
    monkeypatch.setattr(chunks, "measure", None)
    assert settled().layout.chunk == 2
    assert len(built) == 2


def test_options_reach_the_run(corpus, tmp_path):
    from experiments.pretrain.command import PretrainArguments, resolve
    from experiments.pretrain.run import Pretraining

    options = PretrainArguments(
        data=corpus, clients=4, precision="bf16", masked_group_norm=True, chunk=2, lanes=1, local_epochs=3,
        batch_size=2, crop_seconds=0.7, heldout_speakers=2,
    )  # fmt: skip
    folder = RunFolder(tmp_path / "run", resolve(options), {})
    made = Pretraining(folder._config["settings"], folder)
    folder.close()
    assert (made.config.compute_dtype, made.config.masked_group_norm) == ("bfloat16", True)
    assert (made.layout, made.config.convolution_form) == ((1, 2, 1), "product")
    work = {"batch_size": 2, "crop_samples": 11_200, "steps": None, "epochs": 3, "loss_window": "last-epoch"}
    assert vars(made.work) == work


def test_data_that_changed_since_the_run_began_are_refused(corpus, finished, tmp_path):
    out, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    clips = read_json(copy / "clips.json")
    clips["seconds"] += 1.0
    (copy / "clips.json").write_text(json.dumps(clips))
    done = subprocess.run(command(corpus, copy, *CLIENTS, "--rounds", "4"), capture_output=True, text=True)
    assert done.returncode == 2
    assert "changed since it began" in done.stderr


@pytest.mark.slow
def test_centralised_runs_and_continues(corpus, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["--preset", "centralised", "--rounds", "2"]
    run(corpus, whole, *options)
    lines = read_metrics(whole / "metrics.jsonl")
    assert [line["clients"] for line in lines] == [0, 0]
    assert set(lines[-1]) >= COLUMNS
    argv = command(corpus, parts, *options)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_after(process, parts / "metrics.jsonl", 1)
    run(corpus, parts, *options)
    assert parameters(parts) == parameters(whole)


def test_report_names_data_and_command(finished):
    out, _ = finished
    text = (out / "report.md").read_text()
    assert "; guessing would reach" in text
    assert "1 empty, 1 silent" in text.replace("1 truncated, ", "")
    assert json.loads((out / "config.json").read_text())["settings"]["seed"] == 3


@pytest.mark.slow
def test_spoilt_clients_are_named_and_their_weight_is_on_every_line(corpus, finished, tmp_path):
    clean, _ = finished
    out = tmp_path / "spoilt"
    options = ["--corruption", "noise", "--corrupted-clients", "2"]
    run(corpus, out, *CLIENTS, "--rounds", "4", *options)
    spoilt = read_json(out / "clips.json")["corruption"]
    assert spoilt["kind"] == "noise"
    assert len(spoilt["clients"]) == 2
    for line in read_metrics(out / "metrics.jsonl"):
        weights = dict(zip(line["client_ids"], line["client_weights"], strict=True))
        expected = sum(weights.get(client, 0.0) for client in spoilt["clients"])
        assert line["corrupted_weight"] == pytest.approx(expected)
    assert "corrupted_weight" not in read_metrics(clean / "metrics.jsonl")[0]
    # What is held out is as it was; what was trained on is not.
    assert read_json(out / "untrained.json") == read_json(clean / "untrained.json")
    assert read_metrics(out / "metrics.jsonl")[0]["loss"] != read_metrics(clean / "metrics.jsonl")[0]["loss"]
    assert "2 of 4 trained on spoilt audio (noise)" in (out / "report.md").read_text()
    assert spoilt["clients"][0] in (out / "report.html").read_text()
    assert "corrupted" not in (clean / "report.md").read_text()


DIAGNOSED = ["--diagnose-every", "3"]


@pytest.fixture(scope="module")
def diagnosed(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("diagnosed") / "run"
    run(corpus, out, *CLIENTS, "--rounds", "4", *DIAGNOSED)
    return out


@pytest.mark.slow
def test_looking_at_clients_changes_no_bit_of_the_run(finished, diagnosed):
    out, _ = finished
    assert parameters(diagnosed) == parameters(out)
    assert untimed(diagnosed) == untimed(out)
    assert not (out / "diagnostics.jsonl").exists()
    assert not (out / "diagnostics.png").exists()


@pytest.mark.slow
def test_diagnostics_agree_with_the_metrics_of_their_rounds(diagnosed):
    looks = read_metrics(diagnosed / "diagnostics.jsonl")
    lines = {line["round"]: line for line in read_metrics(diagnosed / "metrics.jsonl")}
    assert [look["round"] for look in looks] == [3, 4]
    for look in looks:
        line = lines[look["round"]]
        order = sorted(range(3), key=line["client_ids"].__getitem__)
        assert [client["client"] for client in look["clients"]] == [line["client_ids"][i] for i in order]
        for name, column in (("weight", "client_weights"), ("training_loss", "client_losses")):
            assert [client[name] for client in look["clients"]] == [line[column][i] for i in order]
        norms = [client["update_norm"] for client in look["clients"]]
        assert np.mean(norms) == pytest.approx(line["client_update_norm_mean"], rel=1e-5)
        assert look["mean_update_norm"] == pytest.approx(line["update_norm"], rel=1e-5)
        assert all(0 < client["cosine_to_mean"] <= 1 for client in look["clients"])
        assert not any(client["corrupted"] for client in look["clients"])
        # Local models differ from one another and from what they started from and became.
        losses = [client["heldout_contrastive"] for client in look["clients"]]
        assert len({*losses, look["before"]["contrastive"], look["after"]["contrastive"]}) == 5
    # The corpus holds fewer clips out than the look's limit: both judge by the same ones.
    for name in ("contrastive", "accuracy", "code_perplexity", "prob_perplexity"):
        assert looks[1]["after"][name] == lines[4][f"heldout_{name}"]
        assert looks[1]["before"][name] == looks[0]["after"][name]
    assert "## Behind the average" in (diagnosed / "report.md").read_text()
    assert (diagnosed / "report.html").read_text().count("data:image/png;base64,") == 2


@pytest.mark.slow
def test_diagnostics_are_rewound_with_the_metrics(corpus, diagnosed, tmp_path):
    killed = tmp_path / "killed"
    argv = command(corpus, killed, *CLIENTS, "--rounds", "4", *DIAGNOSED)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The checkpoint is that of round 2, the look that of round 3.
    kill_after(process, killed / "metrics.jsonl", 3)
    with (killed / "diagnostics.jsonl").open("a") as out:
        out.write('{"round": 3, "cl')
    run(corpus, killed, *CLIENTS, "--rounds", "4", *DIAGNOSED)
    assert (killed / "diagnostics.jsonl").read_text() == (diagnosed / "diagnostics.jsonl").read_text()


@pytest.mark.slow
def test_rounds_that_reach_nobody_are_counted_and_change_nothing(corpus, tmp_path):
    out = tmp_path / "run"
    options = ["--client-dropout", "0.97", "--clients", "2", "--clients-per-round", "2", "--rounds", "6"]
    printed = run_here(corpus, out, "--preset", "ten-clients", *options, "--evaluate-every", "1")
    lines = read_metrics(out / "metrics.jsonl")
    empty = [line for line in lines if line["clients"] == 0]
    assert len(empty) >= 3
    assert "no client answered" in printed
    for line in lines:
        assert line["clients"] + line["dropped_clients"] == 2
    before = {0: read_json(out / "untrained.json")["loss"]}
    before |= {line["round"]: line["heldout_loss"] for line in lines}
    for line in empty:
        assert line["update_norm"] == 0.0
        assert line["padded_share"] == 0.0
        assert line["heldout_loss"] == before[line["round"] - 1]


@pytest.mark.slow
def test_a_private_run_says_what_it_has_spent(corpus, tmp_path):
    from fed.privacy import accounting

    out = tmp_path / "run"
    options = ["--aggregation", "uniform", "--dp-clip-norm", "0.05", "--dp-noise-multiplier", "1.5"]
    options += ["--dp-delta", "1e-3", "--dp-clipping", "layer", "--clients", "4", "--clients-per-round", "2"]
    # No update is small enough: the noise alone moves the model.
    options += ["--partition", "iid", "--max-update-norm", "1e-9"]
    printed = run_here(corpus, out, "--preset", "hundred-clients", "--rounds", "3", *options)
    lines = read_metrics(out / "metrics.jsonl")
    expected = [
        accounting.epsilon(1.5, sampling_probability=0.5, rounds=rounds, delta=1e-3) for rounds in (1, 2, 3)
    ]
    assert [line["epsilon"] for line in lines] == pytest.approx(expected)
    for line in lines:
        assert (line["delta"], line["noise_multiplier"]) == (1e-3, 1.5)
        # Updates of such a run are far larger than the clip norm.
        assert line["clipped_share"] > 0.5 or line["clients"] == 0
        assert line["update_norm"] > 0.0
        said = f"round {line['round']} used no client's update ({line['clients']} too large)" in printed
        assert said == (line["clients"] > 0)
    report = (out / "report.md").read_text()
    for text in (printed, report):
        assert "no speaker is protected" in text
    assert "- 3 of 3 rounds used no client's update." in report
    assert f"- The rounds spent a privacy of epsilon {expected[-1]:.3g} at delta 0.001." in report


@pytest.mark.slow
def test_late_and_superfluous_clients_are_counted(corpus, tmp_path):
    out = tmp_path / "run"
    options = ["--clients", "4", "--clients-per-round", "2", "--overshoot", "1.5", "--speed-spread", "0.5"]
    run_here(corpus, out, "--preset", "hundred-clients", "--rounds", "3", *options, "--proximal", "0.1")
    for line in read_metrics(out / "metrics.jsonl"):
        assert (line["clients"], line["late_clients"], line["dropped_clients"]) == (2, 1, 0)
        # The late one was sent the model all the same.
        assert line["bytes_down"] == 3 * line["bytes_up"] // 2


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_goes_on(corpus, finished, tmp_path):
    out, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    for path in (copy / "checkpoints" / "4").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    printed = run(corpus, copy, *CLIENTS, "--rounds", "4")
    assert "checkpoint of round 4 is damaged" in printed
    assert "continuing from round 2" in printed
    assert parameters(copy) == parameters(out)
    assert untimed(copy) == untimed(out)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--dp-epsilon", "3"], "--dp-epsilon has a meaning with --dp-clip-norm alone"),
        (["--dp-clip-norm", "1", "--dp-epsilon", "3"], "--dp-clip-norm needs --aggregation uniform"),
        (["--dp-clip-norm", "1", "--aggregation", "uniform"], "give either --dp-noise-multiplier or"),
        (
            ["--dp-clip-norm", "1", "--aggregation", "uniform", "--dp-epsilon", "3", "--local-epochs", "1"],
            "--dp-clip-norm needs --local-steps",
        ),
        (
            ["--dp-clip-norm", "1", "--aggregation", "uniform", "--dp-epsilon", "3", "--deadline-steps", "9"],
            "--deadline-steps cannot be combined with --dp-clip-norm",
        ),
        (["--speed-spread", "0.5"], "--speed-spread changes nothing without"),
        (["--overshoot", "1.2"], "--overshoot has nobody else to ask"),
        (["--overshoot", "0.5"], "--overshoot must be at least 1"),
        (["--client-dropout", "1"], "--client-dropout must be below 1"),
        (["--server-optimizer", "fedadm"], "fedadam"),
        (["--objective", "best-rq", "--masked-group-norm"], "--masked-group-norm is for convolutions"),
        (
            ["--objective", "wav2vec2", "--model", "best-rq-tiny"],
            "there is no model best-rq-tiny of wav2vec2",
        ),
        (
            ["--preset", "centralised", "--proximal", "1"],
            "--proximal has no meaning with --preset centralised",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options, expected, tmp_path, capfd):
    from tests.experiments.cli.test_commands import fails

    assert expected in fails(capfd, "pretrain", "--out", str(tmp_path / "run"), *options)
    assert not (tmp_path / "run").exists()
