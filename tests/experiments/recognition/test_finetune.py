"""finetune and transcribe end to end: runs, is cut off, continues; results that agree; bad input."""

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

from experiments.cli import main as cli
from experiments.models import encoders
from experiments.options.errors import UsageError
from experiments.process.files import read_json, write_json
from experiments.recognition import report as recognition_report
from experiments.recognition.finetune import FinetuneArguments, default_folder, resolve
from experiments.recognition.recognition_task import best_line
from experiments.recognition.run import STATISTICS_BATCHES, Finetuning
from experiments.runs.folder import read_metrics
from tests.configs import SMALL
from tests.experiments.cli.test_commands import fails
from tests.experiments.runs.test_events import assert_events_are_metrics
from tests.experiments.runs.test_tracking import Recorder
from tests.w2v_jax.interop.test_huggingface_folder import settings_of
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.config import SAMPLE_RATE_HZ, TINY, ModelConfig
from w2v_jax.data.prepared.preparation import prepare
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.errors import UserError
from w2v_jax.interop import huggingface_names
from w2v_jax.objective.pretraining import bind_model
from w2v_jax.recognition.error_rates import Errors, character_errors, word_errors
from w2v_jax.recognition.training import NewBob, TrainingState, tri_stage
from w2v_jax.text.storage import load_tokenizer

# Rates so high, and transcripts so long, that a few updates make it say something.
RUN = [
    "--evaluate-every", "2", "--batch-seconds", "8", "--max-seconds", "3", "--head-blocks", "1",
    "--head-width", "32", "--head-optimizer", "adam", "--head-learning-rate", "0.3", "--seed", "3",
]  # fmt: skip
SCRATCH = [*RUN, "--updates", "8", "--head-only-updates", "2"]
LONG_SAMPLES, SHORT_SAMPLES = 25_600, 9_600
TABLES = ("train", "dev", "test", "validated")


def sentences_of(locale, split):
    with (locale / f"{split}.tsv").open(encoding="utf-8") as lines:
        return {row["path"]: row for row in csv.DictReader(lines, delimiter="\t")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight speakers, two of them in test; nearly all clips of one length, so that little is compiled."""
    folder = tmp_path_factory.mktemp("corpus")
    config = SyntheticConfig(speakers=8, clips_per_speaker=4, words=12, words_per_sentence=(6, 7), seed=4)
    locale = write_corpus(folder, config)
    for path in (locale / "clips").iterdir():
        samples, _ = soundfile.read(path, dtype="float32")
        short = path.stem in ("synthetic_0003_0000", "synthetic_0005_0000")
        length = SHORT_SAMPLES if short else LONG_SAMPLES
        soundfile.write(path, samples[4000 : 4000 + length], SAMPLE_RATE_HZ, subtype="PCM_16")
    train, test = locale / "train.tsv", locale / "test.tsv"
    lines = train.read_text().splitlines(keepends=True)
    moved = [line for line in lines if line.startswith("synthetic_0003")]
    train.write_text("".join(line for line in lines if line not in moved))
    test.write_text(test.read_text() + "".join(moved))
    return locale


def finetune(corpus, out, *options):
    assert cli.main(["finetune", "--data", str(corpus), "--out", str(out), *options]) == 0
    return out


@pytest.fixture(scope="module")
def scratch(corpus, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "trackio", Recorder())
        return finetune(corpus, tmp_path_factory.mktemp("scratch") / "run", *SCRATCH, "--track", "trackio")


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrained") / "run"
    options = [
        "--preset", "centralised", "--rounds", "3", "--local-steps", "1", "--batch", "2",
        "--seconds", "0.8", "--checkpoint-every", "1", "--heldout-speakers", "2",
        "--evaluate-every", "3",
    ]  # fmt: skip
    assert cli.main(["pretrain", "--data", str(corpus), "--out", str(out), *options]) == 0
    return out


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """A folder of checkpoints: the newest one's arrays by path."""
    import orbax.checkpoint as ocp

    step = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
    with ocp.CheckpointManager(folder.absolute()) as manager:
        held = manager.restore(step, args=ocp.args.StandardRestore())
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(held)
    }


def assert_same_arrays(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def untimed(value):
    """Metrics or results without their times and where they come from."""
    if isinstance(value, list):
        return [untimed(item) for item in value]
    timed = {"train_seconds", "evaluation_seconds", "audio_seconds_a_second", "provenance"}
    return {name: item for name, item in value.items() if name not in timed}


def transcripts(out):
    with (out / "transcripts.tsv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_a_run_leaves_metrics_checkpoints_and_a_report(scratch, capsys):
    lines = read_metrics(scratch / "metrics.jsonl")
    assert [line["update"] for line in lines] == [2, 4, 6, 8]
    columns = {
        "update", "epoch", "loss", "infeasible", "audio_seconds", "skipped_updates", "dev_loss", "dev_wer",
        "dev_cer", "encoder_learning_rate", "head_learning_rate", "train_seconds",
        "padded_share", "audio_seconds_a_second",
    }  # fmt: skip
    assert columns <= set(lines[0])
    # Four speakers of four clips and five a batch: four batches, the last with one clip.
    assert lines[1]["epoch"] == 1.0
    assert not any(line["skipped_updates"] for line in lines)
    assert all(0 < line["loss"] < 100 for line in lines)
    assert all(0 <= line["padded_share"] < 0.5 for line in lines)
    assert lines[0]["audio_seconds_a_second"] == lines[0]["audio_seconds"] / lines[0]["train_seconds"]
    seconds = sum(line["audio_seconds"] for line in lines)
    assert seconds == pytest.approx(2 * 20 * LONG_SAMPLES / SAMPLE_RATE_HZ, rel=0.1)
    assert read_json(scratch / "tracking.json")["trackio"]["last"] == 8
    assert (scratch / "curves.png").read_bytes().startswith(b"\x89PNG")
    html = (scratch / "report.html").read_text()
    assert "data:image/png;base64," in html
    assert 'src="curves.png"' not in html
    tokenizer, _ = load_tokenizer(scratch)
    data = read_json(scratch / "data.json")
    assert data["tokens"] == tokenizer.num_tokens
    assert [data[split]["speakers"] for split in ("train", "dev", "test")] == [5, 1, 2]
    assert data["train"]["dropped"] == {}


def test_learning_rates_follow_newbob_once_the_head_has_had_its_updates(scratch):
    lines, newbob = read_metrics(scratch / "metrics.jsonl"), NewBob()
    for line in lines:
        assert line["head_learning_rate"] == pytest.approx(0.3 * newbob.scales["head"])
        encoder = 0.0 if line["update"] <= 2 else 1e-3 * newbob.scales["encoder"]
        assert line["encoder_learning_rate"] == pytest.approx(encoder)
        newbob.observe(line["dev_loss"])


def test_results_transcripts_and_report_say_the_same(corpus, scratch):
    result, rows = read_json(scratch / "results.json"), transcripts(scratch)
    expected = sentences_of(corpus, "test")
    assert {row["path"]: row["reference"] for row in rows} == {
        path: row["sentence"] for path, row in expected.items()
    }
    assert len({row["hypothesis"] for row in rows}) >= 4  # else the run says nothing
    totals = {
        "word": sum((word_errors(r["reference"], r["hypothesis"]) for r in rows), Errors(0, 0)),
        "character": sum((character_errors(r["reference"], r["hypothesis"]) for r in rows), Errors(0, 0)),
    }
    test = result["test"]
    assert test["wer"] == totals["word"].rate
    assert test["cer"] == totals["character"].rate
    for name, total in totals.items():
        assert (test[f"{name}_edits"], test[f"{name}s"]) == (total.edits, total.length)
    assert test["utterances"] == 8
    assert test["empty_hypotheses"] == sum(not row["hypothesis"] for row in rows)
    short = expected["synthetic_0003_0000.flac"]["sentence"]
    assert len(short) > TINY.num_frames(SHORT_SAMPLES)
    assert test["infeasible"] == 1
    best = best_line(read_metrics(scratch / "metrics.jsonl"), "wer")
    assert result["best_update"] == best["update"]
    assert result["dev"] == {name: best[f"dev_{name}"] for name in ("wer", "cer", "loss")}
    report = (scratch / "report.md").read_text()
    assert "\n## Is this run healthy?\n" in report
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines()]
    assert ["WER", f"{100 * test['wer']:.1f} %", f"{100 * best['dev_wer']:.1f} %"] in cells
    assert ["CER", f"{100 * test['cer']:.1f} %", f"{100 * best['dev_cer']:.1f} %"] in cells
    assert f"{test['word_edits']} edits in {test['words']} words of 8 clips" in report
    assert f"- Update {best['update']} of 8, the best by validation WER, was scored: " in report
    assert f"Test WER is **{100 * test['wer']:.1f} %** and CER **{100 * test['cer']:.1f} %**" in report
    assert f"{100 * test['wer']:.1f} %" in (scratch / "report.html").read_text()
    worst = result["worst"]
    assert len(worst) == 8
    assert [row["wer"] for row in worst] == sorted((row["wer"] for row in worst), reverse=True)
    shown = recognition_report.worst_utterances(result)
    assert [row["path"] in shown for row in worst] == [True] * 5 + [False] * 3
    assert worst[0]["alignment"] in shown
    assert shown.endswith("`results.json` has the next 3.")


def test_a_page_of_empty_alignments_is_one_sentence(scratch):
    """Whether the scored checkpoint writes words, not the last validation, decides what the report shows."""
    result = read_json(scratch / "results.json")
    silent = {"wer": 1.0, "cer": 0.97, "loss": 3.0912, "empty_hypotheses": 7, "utterances": 8}
    told = recognition_report.blank_phase(scratch, result | {"test": result["test"] | silent})
    assert told is not None
    assert told.startswith(
        "The model is still in CTC's blank phase (loss 3.091 a token; usual before about 2,000 updates, and "
        f"it was scored after {result['best_update']}): 7 of 8 transcripts are empty."
    )
    words = silent | {"wer": 0.6, "cer": 0.3, "empty_hypotheses": 0}
    assert recognition_report.blank_phase(scratch, result | {"test": result["test"] | words}) is None


def test_speakers_add_up_to_the_corpus(scratch):
    result, rows = read_json(scratch / "results.json"), transcripts(scratch)
    speakers = result["per_speaker"]
    assert {row["speaker"] for row in speakers} == {"synthetic_0000", "synthetic_0003"}
    assert sum(row["utterances"] for row in speakers) == result["test"]["utterances"]
    assert sum(row["words"] for row in speakers) == result["test"]["words"]
    edits = sum(row["wer"] * row["words"] for row in speakers)
    assert edits == pytest.approx(result["test"]["word_edits"])
    assert [row["wer"] for row in speakers] == sorted((row["wer"] for row in speakers), reverse=True)
    for speaker in speakers:
        own = [row for row in rows if row["path"].startswith(speaker["speaker"])]
        errors = sum((character_errors(row["reference"], row["hypothesis"]) for row in own), Errors(0, 0))
        assert speaker["cer"] == errors.rate


def cut_off(monkeypatch, folder, update):
    """Let the next run end where it would save a checkpoint into `folder`."""
    original = Checkpoints.save

    def save(self, round_index, state):
        if self._folder.name == folder and round_index == update:
            raise KeyboardInterrupt
        original(self, round_index, state)

    monkeypatch.setattr(Checkpoints, "save", save)


# Keyword runs, which share the loop, are cut off in a plain test.
@pytest.mark.slow
@pytest.mark.parametrize("where", ["before a checkpoint", "before the best one's"])
def test_a_run_that_was_cut_off_continues_to_the_same_bits(corpus, scratch, tmp_path, monkeypatch, where):
    out, best = tmp_path / "cut", read_json(scratch / "results.json")["best_update"]
    with monkeypatch.context() as patch:
        if where == "before the best one's":
            cut_off(patch, "best", best)
        else:
            cut_off(patch, "checkpoints", 4)
        assert cli.main(["finetune", "--data", str(corpus), "--out", str(out), *SCRATCH]) == 130
    assert not (out / "results.json").exists()
    if where == "before a checkpoint":  # the line of update 4 is there, and another one begun
        assert [line["update"] for line in read_metrics(out / "metrics.jsonl")] == [2, 4]
        with (out / "metrics.jsonl").open("a") as lines:
            lines.write('{"update": 6, "lo')
    finetune(corpus, out, *SCRATCH)
    assert untimed(read_metrics(out / "metrics.jsonl")) == untimed(read_metrics(scratch / "metrics.jsonl"))
    assert untimed(read_json(out / "results.json")) == untimed(read_json(scratch / "results.json"))
    assert transcripts(out) == transcripts(scratch)
    for name in ("checkpoints", "best"):
        assert_same_arrays(arrays(out / name), arrays(scratch / name))
    assert len((out / "starts.jsonl").read_text().splitlines()) == 2
    assert_events_are_metrics(out, "update")


@pytest.mark.parametrize("at", [3, 100])
def test_validations_see_statistics_of_the_last_batches_and_the_parameters_as_they_are(at):
    run, key = object.__new__(Finetuning), jax.random.key(3)
    seen = []

    def update(parameters, statistics, batch, batch_key):
        seen.append((parameters, batch, jax.random.key_data(batch_key).tolist()))
        return statistics + 1

    run.train_batches, run._update_statistics = range(1000), update
    state = TrainingState("as they are", 0, ())
    earlier = range(max(0, at + 1 - STATISTICS_BATCHES), at + 1)
    assert run._statistics(state, key, at) == len(earlier)
    keys = [jax.random.key_data(jax.random.fold_in(key, step)).tolist() for step in earlier]
    assert seen == [("as they are", step, held) for step, held in zip(earlier, keys, strict=True)]


@pytest.mark.slow
def test_what_is_validated_and_kept_has_those_statistics(corpus, scratch, tmp_path, monkeypatch):
    original, found = Finetuning._statistics, {}

    def watched(self, state, key, step):
        found[step + 1] = original(self, state, key, step)
        return found[step + 1]

    with monkeypatch.context() as patch:
        patch.setattr(Finetuning, "_statistics", watched)
        out = finetune(corpus, tmp_path / "run", *SCRATCH)
    assert sorted(found) == [2, 4, 6, 8]
    best = read_json(out / "results.json")["best_update"]
    kept = {name: value for name, value in arrays(out / "best").items() if name.startswith("['statistics']")}
    expected = jax.tree_util.tree_leaves_with_path({"statistics": found[best]})
    assert_same_arrays(kept, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in expected})


def test_the_same_command_again_changes_no_result(corpus, scratch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(scratch, copy)
    older = read_json(copy / "recognizer.json")  # of before there were objectives
    older["model"] = {
        name: held for name, held in older["model"].items() if name not in ("objective", "front_end")
    }
    write_json(copy / "recognizer.json", older)
    finetune(corpus, copy, *SCRATCH)
    for name in ("metrics.jsonl", "transcripts.tsv", "tokenizer.json", "data.json"):
        assert (copy / name).read_bytes() == (scratch / name).read_bytes()
    assert untimed(read_json(copy / "results.json")) == untimed(read_json(scratch / "results.json"))


@pytest.mark.slow
def test_a_pretrained_encoder_is_what_a_run_begins_with(corpus, pretrained, tmp_path):
    before = tree_of(pretrained)
    options = [*RUN, "--updates", "2", "--encoder-learning-rate", "0", "--init", str(pretrained)]
    out = finetune(corpus, tmp_path / "run", *options)
    found, held = arrays(out / "best"), arrays(pretrained / "checkpoints")
    kept = {name: value for name, value in found.items() if name.startswith("['parameters']['encoder']")}
    assert len(kept) > 30
    for name, value in kept.items():
        np.testing.assert_array_equal(value, held[name.replace("['encoder']", "", 1)], err_msg=name)
    source = read_json(out / "encoder.json")
    assert (source["round"], source["model"], source["init"]) == (3, "tiny", str(pretrained))
    assert source["pretraining"]["preset"] == "centralised"
    assert f"encoder from {pretrained}" in (out / "report.md").read_text()
    # Reading it changes nothing there.
    assert tree_of(pretrained) == before


def test_an_earlier_round_is_another_encoder(pretrained):
    last, second = (encoders.load(name, None) for name in (str(pretrained), f"{pretrained}@2"))
    assert [source.description["round"] for source in (last, second)] == [3, 2]
    assert last.description["parameters_sha256"] != second.description["parameters_sha256"]
    assert (
        encoders.load(f"{pretrained}@3", "tiny").description["parameters_sha256"]
        == (last.description["parameters_sha256"])
    )


def test_log_mel_pieces_a_budget_and_shuffled_transcripts(corpus, tmp_path, capfd):
    options = [
        *RUN, "--updates", "4", "--features", "log-mel", "--schedule", "tri-stage", "--no-augment",
        "--tokens", "pieces", "--pieces", "30", "--train-minutes", "0.25", "--shuffle-transcripts",
    ]  # fmt: skip
    renamed = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    clip = renamed / "clips" / next(iter(sentences_of(corpus, "test")))
    clip.rename(clip.with_suffix(".FLAC"))
    out = finetune(renamed, tmp_path / "run", *options)
    assert f"changed: 1 other name in test (counted in {out / 'data.json'})" in capfd.readouterr().out
    assert not any("['encoder']" in name for name in arrays(out / "best"))
    assert read_json(out / "results.json")["test"]["utterances"] == 8
    for line in read_metrics(out / "metrics.jsonl"):
        assert line["head_learning_rate"] == pytest.approx(0.3 * tri_stage(line["update"] - 1, 4))
    tokenizer, _ = load_tokenizer(out)
    assert tokenizer.num_tokens == 30 == read_json(out / "recognizer.json")["head"]["num_tokens"]
    assert 12 < read_json(out / "data.json")["train"]["seconds"] <= 15
    report = (out / "report.md").read_text()
    assert "Fine-tuning: log-mel bands" in report
    assert "Control run" in report
    assert [
        line.split("|")[-2].strip()
        for line in report.splitlines()
        if line.startswith(("| train ", "| test "))
    ] == ["none", "1 other name"]


# Seven convolutions of few channels: a Hugging Face folder whose frames are of 20 ms.
FOLDER = SMALL.replace(
    conv_channels=(8,) * 7, conv_kernels=TINY.conv_kernels, conv_strides=TINY.conv_strides, num_layers=1
)


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings_of(FOLDER)))
    parameters = jax.device_get(jax.jit(bind_model(FOLDER)[0])(jax.random.key(0)))
    save_file(huggingface_names.to_state_dict(parameters, FOLDER), folder / "model.safetensors")
    return folder, parameters


@pytest.mark.slow
def test_a_probe_of_a_hugging_face_folder(corpus, hugging_face, tmp_path):
    folder, parameters = hugging_face
    options = [*RUN, "--updates", "2", "--init", f"hf:{folder}", "--freeze", "encoder", "--dropout", "0.2"]
    out = finetune(corpus, tmp_path / "run", *options, "--head-blocks", "0")
    found = arrays(out / "best")
    encoder = {name: value for name, value in found.items() if "['encoder']" in name}
    for path, value in jax.tree_util.tree_leaves_with_path(parameters):
        name = f"['parameters']['encoder']{jax.tree_util.keystr(path)}"
        if not any(part in name for part in ("quantizer", "project_")):
            np.testing.assert_array_equal(encoder.pop(name), value, err_msg=name)
    assert not encoder
    config = read_json(out / "recognizer.json")
    assert config["model"]["normalise_waveform"]
    assert config["model"]["masked_group_norm"]
    assert (config["model"]["dropout"], config["model"]["activation_dropout"]) == (0.2, 0.2)
    assert ModelConfig.from_dict(config["model"]).num_layers == 1
    assert [line["encoder_learning_rate"] for line in read_metrics(out / "metrics.jsonl")] == [0.0]


# Transcribing.


def test_transcribe_says_what_the_test_said(corpus, scratch, tmp_path, capfd):
    # There, clips lie in batches beside longer ones; here each is alone, in a file.
    rows = transcripts(scratch)
    files = [str(corpus / "clips" / row["path"]) for row in rows]
    expected = "".join(f"{file}\t{row['hypothesis']}\n" for file, row in zip(files, rows, strict=True))
    out = tmp_path / "text.tsv"
    capfd.readouterr()
    assert cli.main(["transcribe", *files, "--run", str(scratch), "--out", str(out)]) == 0
    assert capfd.readouterr().out == expected
    assert out.read_text() == expected
    assert cli.main(["transcribe", files[0], "--run", str(scratch)]) == 0
    assert capfd.readouterr().out == expected.splitlines(keepends=True)[0]


def test_transcribe_reads_other_rates_and_long_files_in_windows(corpus, scratch, tmp_path, capfd):
    clips = sorted((corpus / "clips").glob("*_0001.flac"))
    samples = np.concatenate([soundfile.read(clip)[0] for clip in clips])
    file = tmp_path / "long.wav"
    soundfile.write(file, np.repeat(np.stack([samples, samples], 1), 3, axis=0), 48_000)
    capfd.readouterr()
    texts = []
    for seconds in ("8", "20"):
        assert cli.main(["transcribe", str(file), "--run", str(scratch), "--window-seconds", seconds]) == 0
        texts.append(capfd.readouterr().out.removeprefix(f"{file}\t").strip())
    assert len(samples) > 12 * SAMPLE_RATE_HZ
    assert all(len(text) > 10 for text in texts)


def test_a_bad_file_among_good_ones_is_named_and_the_others_are_read(corpus, scratch, tmp_path, capfd):
    good = corpus / "clips" / "synthetic_0000_0001.flac"
    notes, missing = tmp_path / "notes.txt", tmp_path / "missing.mp3"
    notes.write_text("no audio at all, but words\n" * 40)
    capfd.readouterr()
    code = cli.main(["transcribe", str(notes), str(good), str(missing), "--run", str(scratch)])
    printed, errors = capfd.readouterr()
    assert code == 2
    assert printed.startswith(f"{good}\t")
    assert len(printed.splitlines()) == len(errors.splitlines()) == 1
    assert str(notes) in errors
    assert str(missing) in errors
    assert "give wav, flac, mp3 or ogg files" in errors


def test_a_folder_is_transcribed_in_the_order_of_its_paths(corpus, scratch, tmp_path, capfd):
    row = transcripts(scratch)[0]
    folder = tmp_path / "recordings"
    names = ["a b/2.flac", "a b/10.FLAC", "1.flac", "c/é.flac"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(corpus / "clips" / row["path"], folder / name)
    (folder / "c" / "broken.wav").write_text("no audio\n" * 40)
    (folder / "notes.txt").write_text("no audio either")
    (folder / "call.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    single = tmp_path / "single.flac"
    shutil.copy(folder / "1.flac", single)
    capfd.readouterr()
    options = ["--run", str(scratch), "--out", str(tmp_path / "text.tsv")]
    assert cli.main(["transcribe", str(single), str(folder), *options]) == 0
    printed, errors = capfd.readouterr()
    expected = [single, *(folder / name for name in sorted(names))]
    assert printed == "".join(f"{file}\t{row['hypothesis']}\n" for file in expected)
    assert (tmp_path / "text.tsv").read_text() == printed
    assert f"{folder}: 5 audio files; passed over: 1 .m4a file, 1 no audio\n" in errors
    assert f"{folder / 'c' / 'broken.wav'}: left out (undecodable" in errors
    assert errors.endswith("left out: 1 of 6 files (1 undecodable)\n")


def test_a_folder_without_audio_that_can_be_read(scratch, tmp_path, capfd):
    folder = tmp_path / "recordings"
    folder.mkdir()
    command = ("transcribe", str(folder), "--run", str(scratch))
    assert f"{folder} holds no files" in fails(capfd, *command)
    (folder / "notes.txt").write_text("words")
    assert f"{folder} holds no wav, flac, mp3 or ogg file (1 no audio)" in fails(capfd, *command)
    (folder / "broken.wav").write_text("no audio\n" * 40)
    capfd.readouterr()
    assert cli.main([*command]) == 2
    assert f"no audio that can be read in {folder / 'broken.wav'} (undecodable" in capfd.readouterr().err


# Bad input.


def tree_of(folder: Path) -> dict[str, str]:
    """Every file below a folder and its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def fails_to_finetune(capfd, corpus, out, *options):
    """A run that must fail, with one line, and leave no run behind."""
    capfd.readouterr()
    line = fails(capfd, "finetune", "--data", str(corpus), "--out", str(out), *options)
    assert not (out / "config.json").exists()
    return line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--updates", "-3"], "--updates must be positive"),
        (["--updates", "0"], "--updates must be positive"),
        (["--updates", "many"], "--updates"),
        (["--dropout", "1.5"], "--dropout must be below 1"),
        (["--dropout", "-0.1"], "--dropout must be positive"),
        (["--head-learning-rate", "nan"], "--head-learning-rate must be finite"),
        (["--clip-norm", "inf"], "--clip-norm must be finite"),
        (["--train-minutes", "0"], "--train-minutes must be positive"),
        (["--seed", "-1"], "--seed must be positive"),
        (["--seed", "9223372036854775808"], "--seed must be between"),
        (["--pieces", "300"], "--pieces has a meaning with --tokens pieces alone"),
        (["--tokens", "pieces", "--alphabet", "abc"], "--alphabet has a meaning with --tokens characters"),
        (["--batch-seconds", "5"], "cannot hold a clip of --max-seconds"),
        (["--features", "log-mel", "--freeze", "encoder"], "has no encoder"),
        (["--features", "log-mel", "--init", "somewhere"], "has no encoder"),
        (["--model", "bse"], "did you mean base?"),
        (["--schedule", "linear"], "tri-stage"),
        (["--init", "no/such/run"], "no such pre-training run"),
        (["--init", "no/such/run@3"], "no such pre-training run"),
        (["--init", "hf:no/such/folder"], "no such folder: no/such/folder"),
        (["--data", "no/such/corpus"], "no such folder: no/such/corpus"),
        (["--tokens", "pieces", "--pieces", "5"], "leaves characters without a token"),
        (["--tokens", "pieces", "--pieces", "5000"], "more than the text can give"),
    ],
)
def test_mistakes_are_one_line(corpus, capfd, tmp_path, monkeypatch, options, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in fails_to_finetune(capfd, corpus, tmp_path / "run", *options)


def test_a_corpus_without_transcripts(corpus, capfd, tmp_path):
    folder = tmp_path / "xx"
    shutil.copytree(corpus, folder)
    for split in TABLES:
        rows = [line.split("\t")[:2] for line in (folder / f"{split}.tsv").read_text().splitlines()]
        (folder / f"{split}.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in rows))
    line = fails_to_finetune(capfd, folder, tmp_path / "run")
    assert "no clip of train has a transcript" in line
    assert "16 without transcript" in line or "20 without transcript" in line


def test_an_alphabet_that_lacks_characters_names_all_of_them(corpus, capfd, tmp_path):
    used = {char for row in sentences_of(corpus, "train").values() for char in row["sentence"]} - {" "}
    lacking = sorted(used)[::4]
    given = "".join(sorted(used - set(lacking)))
    line = fails_to_finetune(capfd, corpus, tmp_path / "run", "--alphabet", given)
    assert f"no token for the characters {' '.join(map(repr, lacking))}:" in line
    assert "--alphabet" in line


def test_a_checkpoint_of_another_architecture(corpus, pretrained, hugging_face, capfd, tmp_path):
    folder, _ = hugging_face
    for init, field in ((str(pretrained), "conv_channels"), (f"hf:{folder}", "conv_channels")):
        line = fails_to_finetune(capfd, corpus, tmp_path / "run", "--init", init, "--model", "base")
        assert "a checkpoint of another architecture than --model base" in line
        assert field in line
    wrong = tmp_path / "wrong"
    shutil.copytree(folder, wrong)
    (wrong / "config.json").write_text(json.dumps(settings_of(FOLDER) | {"intermediate_size": 64}))
    line = fails_to_finetune(capfd, corpus, tmp_path / "run", "--init", f"hf:{wrong}")
    assert "another architecture than its config.json" in line
    assert "['intermediate']['bias'] has shape (1, 32), expected (1, 64)" in line
    lied = tmp_path / "lied"
    shutil.copytree(pretrained, lied)
    config = read_json(lied / "config.json")
    config["settings"]["model_config"]["num_layers"] = 4
    (lied / "config.json").write_text(json.dumps(config))
    line = fails_to_finetune(capfd, corpus, tmp_path / "run", "--init", str(lied))
    assert "of another architecture than its config.json" in line


def test_hugging_face_folders_that_cannot_be_read(corpus, hugging_face, capfd, tmp_path):
    folder, _ = hugging_face
    hubert, pickled = tmp_path / "hubert", tmp_path / "pickled"
    shutil.copytree(folder, hubert)
    (hubert / "config.json").write_text('{"model_type": "hubert"}')
    line = fails_to_finetune(capfd, corpus, tmp_path / "run", "--init", f"hf:{hubert}")
    assert "another architecture (hubert)" in line
    pickled.mkdir()
    shutil.copy(folder / "config.json", pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    line = fails_to_finetune(capfd, corpus, tmp_path / "run", "--init", f"hf:{pickled}")
    assert "is not a file that torch wrote since version 1.6" in line


def test_a_round_that_is_not_kept(corpus, pretrained, capfd, tmp_path):
    line = fails_to_finetune(capfd, corpus, tmp_path / "run", "--init", f"{pretrained}@1")
    assert "keeps no checkpoint of round 1, only of 2, 3" in line


def test_fine_tuning_begins_from_a_run_of_its_own(scratch):
    """With the encoder of its best checkpoint."""
    source = encoders.load(str(scratch), None)
    expected = {
        name.removeprefix("['parameters']['encoder']"): value
        for name, value in arrays(scratch / "best").items()
        if name.startswith("['parameters']['encoder']")
    }
    found = jax.tree_util.tree_leaves_with_path(source.parameters)
    assert_same_arrays({jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in found}, expected)
    assert len(expected) > 10
    assert source.description["init"] == str(scratch)
    best = encoders.load(f"{scratch}@best", None)
    assert best.description["parameters_sha256"] == source.description["parameters_sha256"]


def test_runs_of_other_commands_are_no_models(corpus, capfd, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"settings": {"devices": 1}, "provenance": {}}))
    line = fails_to_finetune(capfd, corpus, tmp_path / "run", "--init", str(other))
    assert f"--init {other} is not a run of w2v-jax pretrain" in line


def test_a_folder_with_another_run_is_left_alone(corpus, scratch, pretrained, hugging_face, capfd, tmp_path):
    for held, options in (
        (scratch, [*SCRATCH, "--dropout", "0.3"]),
        (pretrained, SCRATCH),
        (hugging_face[0], SCRATCH),
    ):
        copy = tmp_path / held.parent.name
        shutil.copytree(held, copy)
        before = tree_of(copy)
        capfd.readouterr()
        line = fails(capfd, "finetune", "--data", str(corpus), "--out", str(copy), *options)
        assert "choose another" in line
        assert tree_of(copy) == before


def test_data_that_changed_since_the_run_began_are_refused(corpus, scratch, capfd, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(scratch, copy)
    held = read_json(copy / "data.json")
    held["train"]["words"] += 1
    (copy / "data.json").write_text(json.dumps(held))
    before = tree_of(copy)
    capfd.readouterr()
    line = fails(capfd, "finetune", "--data", str(corpus), "--out", str(copy), *SCRATCH)
    assert "changed since it began" in line
    after = tree_of(copy)
    assert {name for name in after if after[name] != before.get(name)} <= {"starts.jsonl"}


def test_what_cannot_be_transcribed_is_one_line(corpus, scratch, pretrained, capfd, tmp_path):
    good = str(corpus / "clips" / "synthetic_0000_0001.flac")
    notes = tmp_path / "notes.wav"
    notes.write_text("words\n" * 100)
    unvalidated = tmp_path / "unvalidated"
    shutil.copytree(scratch, unvalidated, ignore=shutil.ignore_patterns("best"))
    broken, other = tmp_path / "broken", tmp_path / "other"
    for copy in (broken, other):
        shutil.copytree(scratch, copy)
    (broken / "recognizer.json").write_text("{}")
    settings = read_json(scratch / "recognizer.json")
    settings["head"]["width"] *= 2
    (other / "recognizer.json").write_text(json.dumps(settings))
    capfd.readouterr()
    for argv, expected in (
        ([str(notes), "--run", str(scratch)], "no audio that can be read in"),
        ([str(tmp_path / "missing.wav"), "--run", str(scratch)], "missing"),
        ([good, "--run", str(broken)], "is not what w2v-jax finetune writes"),
        ([good, "--run", str(other)], "of another architecture than its recognizer.json says"),
        ([good, "--run", str(pretrained)], "is not a run folder of w2v-jax finetune"),
        ([good, "--run", str(tmp_path / "nowhere")], "is not a run folder of w2v-jax finetune"),
        ([good, "--run", str(unvalidated)], "no validated checkpoint yet"),
        ([good, "--run", str(scratch), "--window-seconds", "4"], "--window-seconds must be at least 8"),
        ([good, "--run", str(scratch), "--window-seconds", "nan"], "--window-seconds must be at least 8"),
        (["--run", str(scratch)], ""),
        ([good], "--run"),
    ):
        assert expected in fails(capfd, "transcribe", *argv)


def test_defaults_and_names():
    settings = resolve(FinetuneArguments())
    assert default_folder(settings) == Path("runs/finetune-scratch")
    assert default_folder(settings | {"init": "hf:models/base-10k"}) == Path("runs/finetune-base-10k")
    assert default_folder(settings | {"features": "log-mel"}) == Path("runs/finetune-log-mel")
    with pytest.raises(UsageError):
        resolve(FinetuneArguments(clip_norm=-1.0))
    with pytest.raises(UserError, match="no such pre-training run"):
        encoders.load("runs/none", None)


def test_the_best_validation_by_its_rates_then_its_loss():
    def line(wer, cer, loss):
        return {"dev_wer": wer, "dev_cer": cer, "dev_loss": loss}

    lines = [line(0.5, 0.3, 1.0), line(0.5, 0.2, 2.0), line(0.5, 0.2, 1.5), line(0.6, 0.1, 0.1)]
    assert best_line(lines, "wer") is lines[2]
    assert best_line(lines, "cer") is lines[3]
    assert best_line([*lines, line(0.5, 0.2, 1.5)], "wer") is lines[2]
    assert best_line([line(None, None, None), line(1.0, 1.0, None)], "wer")["dev_wer"] == 1.0


@pytest.mark.parametrize(("name", "language"), [("tr", "tr"), ("az", "az"), ("it", ""), ("corpus", "")])
def test_the_letter_case_of_a_corpus_is_that_of_its_language(tmp_path, monkeypatch, name, language):
    locale = write_corpus(tmp_path / "made", SyntheticConfig(speakers=3, clips_per_speaker=1, words=5))
    folder = tmp_path / "release" / name
    shutil.copytree(locale, folder)
    prepare(folder, tmp_path / "prepared")
    for data in (folder, tmp_path / "release", tmp_path / "prepared"):
        assert resolve(FinetuneArguments(data=data))["language"] == language
    monkeypatch.chdir(folder)
    assert resolve(FinetuneArguments(data=Path()))["language"] == language
    assert resolve(FinetuneArguments(data=folder, language="ca"))["language"] == "ca"
    with pytest.raises(UsageError, match="--language takes a code"):
        resolve(FinetuneArguments(data=folder, language="xx_bad"))
