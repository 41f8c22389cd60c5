"""Layouts of several files: Kaldi, Lhotse, fairseq."""

import gzip

import numpy as np
import pytest
import soundfile

from tests.experiments.data.importing.sources import imported, json_lines, refused, sound, text


def test_kaldi_without_segments(capfd, tmp_path):
    root = tmp_path / "s5"
    for split in ("train", "test"):
        sound(root / "wav" / split / "a 1.wav")
        folder = root / "data" / split
        pipe = f"u2 touch {tmp_path}/ran |"
        text(folder / "wav.scp", f"u1 wav/{split}/a 1.wav", pipe, "u3 raw.ark:1234", "u4 wav/none.wav")
        text(folder / "utt2spk", "u1 spk1", "u2 spk2", "u3 spk3", "u4 spk4")
        text(folder / "text", f"u1 TEXT  IN {split}", "u2 NOT HEARD", "u9 NOBODY")
    found = imported(capfd, tmp_path, root / "data")
    assert "layout: kaldi (" in found.printed
    assert found.speakers() == {"spk1": 2}
    assert found.sizes() == {"train": 1, "test": 1, "validated": 2}
    assert sorted(found.texts().values()) == ["TEXT IN test", "TEXT IN train"]
    assert found.left_out() == {"pipe": 2, "archive": 2, "missing": 2}
    assert "a command, which is not run" in found.printed
    assert "1 transcripts without a recording in train/text" in found.printed
    assert not (tmp_path / "ran").exists()


def test_kaldi_with_segments(capfd, tmp_path):
    folder = tmp_path / "data"
    whole = sound(folder / "call.wav", 2.0, channels=2)
    text(folder / "wav.scp", f"call {whole}", "tape sox x.wav |")
    segments = [
        "ana-1 call 0.25 0.75", "ben-1 call 1.0 -1 1", "ben-2 call 1.9 2.3", "ben-3 call 3 4",
        "ben-4 call x y", "ben-5 tape 0 1", "ben-6 film 0 1", "nobody call 0 1", "eva-1 call 0 1 7",
    ]  # fmt: skip
    text(folder / "segments", *segments)
    spoken = {"ana": ["ana-1"], "ben": [f"ben-{n}" for n in range(1, 7)], "eva": ["eva-1"]}
    text(folder / "spk2utt", *(f"{speaker} {' '.join(held)}" for speaker, held in spoken.items()))
    text(folder / "text", "ana-1 hello", "ben-1 good day")
    found = imported(capfd, tmp_path, folder)
    assert found.texts() == {"ana-1.flac": "hello", "ben-1.flac": "good day", "ben-2.flac": ""}
    assert found.left_out() == {
        "malformed row": 1,
        "pipe": 1,
        "missing": 1,
        "without a speaker": 1,
        "bad segment": 2,
    }
    samples = soundfile.read(whole, dtype="int16")[0]
    clips = {name: soundfile.read(found.folder / "clips" / name, dtype="int16")[0] for name in found.texts()}
    np.testing.assert_array_equal(clips["ana-1.flac"], samples[2000:6000])
    np.testing.assert_array_equal(clips["ben-1.flac"], samples[8000:, 1])  # to the end, of channel 1
    np.testing.assert_array_equal(clips["ben-2.flac"], samples[15200:])
    assert found.record["segments"] == 3


def test_kaldi_names_that_are_repeated_or_have_no_segment(capfd, tmp_path):
    folder = tmp_path / "s" / "train_si284"
    far = sound(tmp_path / "far.wav")
    for name in ("call", "again", "idle"):
        sound(folder / f"{name}.wav", 0.5)
    text(folder / "wav.scp", "call call.wav", "idle idle.wav", f"far {far}", "call again.wav")
    text(folder / "segments", "u1 call 0 0.25", "u1 call 0.25 0.5")
    text(folder / "spk2utt", "ana u1", "ben u1")
    text(folder / "text", "u1 ja", "u1 nein")
    found = imported(capfd, tmp_path, tmp_path / "s")
    assert found.left_out() == {"duplicate": 2, "without a segment": 2}  # and no file is "not listed" besides
    assert [skip["path"] for skip in found.record["left_out"]] == ["call", "u1", "idle", "far"]
    assert found.texts() == {"u1.flac": "ja"}
    assert found.speakers() == {"ana": 1}
    assert next(iter(found.record["clips"].values()))["frames"] == [0, 2000]
    assert "folders taken as splits: train_si284 (train)" in found.printed
    for file in ("utt2spk or spk2utt", "text"):
        assert f"note: 1 duplicate lines in train_si284/{file} (such as u1's)" in found.printed


def lhotse_recording(path, name="rec", kind="file"):
    return {
        "id": name, "sources": [{"type": kind, "channels": [0, 1], "source": str(path)}],
        "sampling_rate": 8000, "num_samples": 16000, "duration": 2.0,
    }  # fmt: skip


def supervision(name, recording, start, duration, **more):
    return {"id": name, "recording_id": recording, "start": start, "duration": duration, "channel": 1} | more


@pytest.mark.parametrize("packed", [False, True])
def test_lhotse_recordings_and_supervisions(capfd, tmp_path, packed):
    source = tmp_path / "s"
    whole = sound(source / "rec.wav", 2.0, channels=2)
    recordings = [
        lhotse_recording("rec.wav"),
        lhotse_recording("x", "pipe", "command"),
        lhotse_recording("y", "rest"),
    ]
    supervisions = [
        supervision("s-0", "rec", 0.5, 1.0, text="ja", speaker="ada"),
        supervision("s-1", "rec", 1.5, 0.5, text="nein"),
        supervision("s-2", "pipe", 0.0, 1.0, speaker="ada"),
        supervision("s-3", "none", 0.0, 1.0, speaker="ada"),
        supervision("s-4", "rec", "now", 1.0, speaker="ada"),
    ]
    for name, values in (("recordings", recordings), ("supervisions", supervisions)):
        data = "\n".join(json_lines(*values)).encode()
        path = source / f"mini_{name}_dev-clean.jsonl{'.gz' * packed}"
        path.write_bytes(gzip.compress(data) if packed else data)
    found = imported(capfd, tmp_path, source)
    assert "layout: lhotse (" in found.printed
    assert found.speakers() == {"ada": 1}
    assert found.sizes() == {"dev": 1, "validated": 1}
    assert found.left_out() == {
        "pipe": 1, "missing": 1, "malformed row": 1, "without a supervision": 1, "without a speaker": 1,
    }  # fmt: skip
    clip = soundfile.read(found.folder / "clips" / "s-0.flac", dtype="int16")[0]
    np.testing.assert_array_equal(clip, soundfile.read(whole, dtype="int16")[0][4000:12000, 1])


def test_lhotse_files_of_recordings_that_are_left_out_are_listed_once(capfd, tmp_path):
    source = tmp_path / "s"
    files = {"rec": "rec.wav", "mono": "mono.wav", "lone": "lone.wav"}
    recordings = [lhotse_recording(file, name) for name, file in (*files.items(), ("rec", "other.wav"))]
    for recording in recordings:
        sound(source / recording["sources"][0]["source"], channels=2)
    supervisions = [supervision("s-0", "rec", 0.0, 0.2, speaker="ada")]
    supervisions.append(supervision("s-1", "mono", 0.0, 0.2, speaker="ada") | {"channel": 7})
    text(source / "recordings.jsonl", *json_lines(*recordings))
    text(source / "supervisions.jsonl", *json_lines(*supervisions))
    found = imported(capfd, tmp_path, source)
    assert found.record["clips"]["s-0.flac"]["path"] == str(source / "rec.wav")
    assert found.left_out() == {"duplicate": 1, "missing": 1, "without a supervision": 1}


def test_lhotse_cuts(capfd, tmp_path):
    source = tmp_path / "s"
    sound(source / "rec.wav", 2.0, channels=2)
    cut = {"id": "cut-0", "start": 0.5, "duration": 1.0, "channel": 0, "type": "MonoCut"}
    cut |= {"recording": lhotse_recording("rec.wav")}
    talk = [supervision("t-0", "rec", 0.25, 0.5, text="teil", speaker="bo", channel=0)]
    mixed = {"id": "mix", "type": "MixedCut", "tracks": [{"cut": {"recording": lhotse_recording("mix.wav")}}]}
    sound(source / "mix.wav")
    rows = [cut | {"supervisions": talk}, cut | {"id": "cut-1", "supervisions": []}, mixed]
    text(source / "cuts_train.jsonl", *json_lines(*rows))
    found = imported(capfd, tmp_path, source)
    assert found.left_out() == {"no single recording": 1, "without a speaker": 1}
    assert found.texts() == {"t-0.flac": "teil"}
    whole = soundfile.read(source / "rec.wav", dtype="int16")[0]
    clip = soundfile.read(found.folder / "clips" / "t-0.flac", dtype="int16")[0]
    np.testing.assert_array_equal(clip, whole[6000:10000, 0])  # 0.5 + 0.25 s on


def test_fairseq(capfd, tmp_path):
    audio, source = tmp_path / "audio", tmp_path / "manifest"
    for name in ("anna/1.flac", "anna/2.flac", "ben/1.flac"):
        sound(audio / name)
    text(source / "train.tsv", audio, "anna/1.flac\t2000", "ben/1.flac\t2000", "ben/9.flac\t2000")
    text(source / "train.ltr", "J A | G U T |", "N E I N |", "X |")
    text(source / "valid.tsv", audio, "anna/2.flac\t2000")
    text(source / "valid.wrd", "guten tag")
    text(source / "valid.ltr", "W R O N G |")
    text(source / "dict.ltr.txt", "| 5")
    line = refused(capfd, source, "--dry-run")
    assert "no speaker is known for any of the 3 recordings" in line
    found = imported(capfd, tmp_path, source, "--speaker", "folder")
    assert "layout: fairseq (train.tsv shows it" in found.printed
    assert found.speakers() == {"anna": 2, "ben": 1}
    assert found.sizes() == {"train": 2, "dev": 1, "validated": 3}
    assert sorted(found.texts().values()) == ["JA GUT", "NEIN", "guten tag"]
    assert found.left_out() == {"missing": 1}
    text(source / "train.ltr", "ONE")
    assert "has 1 lines and train.tsv lists 3 recordings" in refused(capfd, source, "--dry-run")


def test_fairseq_finds_audio_that_was_moved(capfd, tmp_path):
    source = tmp_path / "s"
    for name in ("a/x/1.wav", "b/x/1.wav"):
        sound(source / name)
    text(source / "train.tsv", "/gone", "a/x/1.wav\t2000", "deep/b/x/1.wav\t2000", "c/1.wav\t2000")
    found = imported(capfd, tmp_path, source, "--speaker", "([ab])/x")
    assert found.speakers() == {"a": 1, "b": 1}
    assert found.left_out() == {"missing": 1}  # c/1.wav may be either
