"""Layouts with a row for each recording: tables, audiofolder, VoxPopuli, NeMo."""

import gzip

import numpy as np
import pytest
import soundfile

from tests.experiments.data.importing.sources import imported, json_lines, refused, sound, text


def recordings(folder, *names, seconds=0.25):
    for name in names:
        sound(folder / name, seconds, subtype="VORBIS" if name.endswith("ogg") else "PCM_16")


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_a_table_by_its_usual_columns(capfd, tmp_path, separator):
    source = tmp_path / "s"
    recordings(source, "clips/one file.wav", "clips/zwei.wav", "clips/extra.wav")
    rows = [
        ("Speaker", "File", "Text", "age"),
        ("s1", "one file.wav", '"a; b, c"', ""),
        ("s2", "zwei", "ü", "30"),
        ("", "extra.wav", "", ""),
        ("s1", "gone.wav", "x", ""),
        ("s1", "", "x", ""),
    ]
    text(source / "list.csv", *(separator.join(row) for row in rows), "too" + separator + "short")
    found = imported(capfd, tmp_path, source)
    assert "layout: table (list.csv shows it" in found.printed
    assert "from column Speaker of list.csv" in found.printed
    assert found.speakers() == {"s1": 1, "s2": 1}
    assert found.left_out() == {"malformed row": 2, "missing": 1, "without a speaker": 1}
    assert found.texts()["zwei.wav"] == "ü"


def test_a_file_whose_row_is_left_out_is_listed_once(capfd, tmp_path):
    source = tmp_path / "s"
    recordings(source, "a.wav", "b.wav", "c.wav", "unlisted.wav")
    for name in ("call.m4a", "unlisted.sph"):
        (source / name).write_bytes(b"x")
    rows = ["a.wav,s1,0,0.25", "b.wav,s1,soon,0.25", "c.wav,s1", "call.m4a,s1,,"]
    text(source / "list.csv", "path,speaker,start,end", *rows)
    found = imported(capfd, tmp_path, source)
    assert [row["path"] for row in found.rows] == ["a.wav"]
    assert found.left_out() == {"malformed row": 2, "not listed": 1, ".m4a file": 1, ".sph file": 1}
    assert ".m4a file: call.m4a (.m4a is not read: convert it to wav" in found.printed


def test_a_damaged_table_is_one_line(capfd, tmp_path):
    source = tmp_path / "s"
    recordings(source, "anna/1.wav")
    data = bytearray(gzip.compress(b'{"audio_filepath": "anna/1.wav"}'))
    data[10] |= 0b110  # the first block's type, which then is none
    (source / "list.jsonl.gz").write_bytes(data)
    line = refused(capfd, source, "--table", "list.jsonl.gz", "--dry-run")
    assert "list.jsonl.gz cannot be read: Error -3 while decompressing" in line
    assert "layout: folders (" in imported(capfd, tmp_path, source).printed  # it is no table that is known


def test_a_table_with_columns_that_the_user_names(capfd, tmp_path):
    source = tmp_path / "s"
    recordings(source, "x/1.wav", "x/2.wav")
    lines = json_lines(
        {"wo": "x/1.wav", "wer": "Ägid", "was": "ja"}, {"wo": "x/2.wav", "wer": None, "was": "n"}
    )
    (source / "liste.jsonl.gz").write_bytes(gzip.compress("\n".join([*lines, "{", "3"]).encode()))
    options = ("--path-column", "wo", "--speaker-column", "wer", "--text-column", "was")
    found = imported(capfd, tmp_path, source, "--table", "liste.jsonl.gz", *options)
    assert [(row["client_id"], row["sentence"]) for row in found.rows] == [("Ägid", "ja")]
    assert found.left_out() == {"malformed row": 2, "without a speaker": 1}
    line = refused(capfd, source, "--table", "liste.jsonl.gz", "--path-column", "woh", "--dry-run")
    assert "--path-column" in line
    assert "has no column woh (found: wo, wer, was)" in line
    assert "no column for the audio files" in refused(capfd, source, "--table", "liste.jsonl.gz", "--dry-run")


def test_a_table_alone_with_segments_of_one_file(capfd, tmp_path):
    source = tmp_path / "s"
    sound(source / "talk.wav", 2.0, channels=2)
    segments = [
        ("0.5", "1.0"),
        ("1.5", "2.4"),
        ("1900", "2500"),
        ("soon", "1"),
        ("0.5", "1.0"),
        ("1.9", "inf"),
    ]
    rows = [f"talk.wav\tana\t{start}\t{end}\t{n}" for n, (start, end) in enumerate(segments)]
    table = text(source / "segments.tsv", "path\tspeaker\tstart\tend\ttext", *rows)
    found = imported(capfd, tmp_path, table)
    assert [row["sentence"] for row in found.rows] == ["0", "1", "5"]
    assert found.left_out() == {"malformed row": 1, "bad segment": 1, "duplicate": 1}
    whole = soundfile.read(source / "talk.wav", dtype="int16")[0]
    for row, (first, end) in zip(found.rows, [(4000, 8000), (12000, 16000), (15200, 16000)], strict=True):
        clip = soundfile.read(found.folder / "clips" / row["path"], dtype="int16")[0]
        np.testing.assert_array_equal(clip, whole[first:end])
    assert "3 segments to cut from 1 files" in found.printed
    assert all(row["path"].endswith(".flac") for row in found.rows)


@pytest.mark.parametrize(("subtype", "suffix"), [("FLOAT", ".wav"), ("PCM_24", ".flac"), ("PCM_U8", ".flac")])
def test_segments_keep_their_samples(capfd, tmp_path, subtype, suffix):
    source = tmp_path / "s"
    sound(source / "talk.wav", 1.0, subtype=subtype)
    text(source / "t.csv", "path,speaker,start,duration", "talk.wav,ana,0.25,0.5")
    found = imported(capfd, tmp_path, source)
    clip = found.folder / "clips" / f"talk{suffix}"
    whole = soundfile.read(source / "talk.wav", dtype="float64")[0]
    np.testing.assert_array_equal(soundfile.read(clip, dtype="float64")[0], whole[2000:6000])


def test_a_table_about_something_else_is_no_list_of_recordings(capfd, tmp_path):
    recordings(tmp_path / "s", "anna/1.wav", "ben/1.wav")
    text(tmp_path / "s" / "speakers.csv", "id,age", "anna,30", f"ben,{'9' * 5000}", f"{'x' * 5000},1")
    text(tmp_path / "s" / "odd.csv", "path,text", '"never closed')
    found = imported(capfd, tmp_path, tmp_path / "s")
    assert "layout: folders (" in found.printed
    assert found.speakers() == {"anna": 1, "ben": 1}
    assert "2 other text files were not read (such as odd.csv)" in found.printed


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_audiofolder(capfd, tmp_path, kind):
    source = tmp_path / "set" / "data"
    for split in ("train", "validation"):
        recordings(source / split, "a.wav", "sub/b.wav", "unlisted.wav")
        rows = [("a.wav", f"in {split}", "s1"), ("sub/b.wav", "", "s2")]
        if kind == "csv":
            text(
                source / split / "metadata.csv",
                "file_name,transcription,speaker_id",
                *(",".join(r) for r in rows),
            )
        else:
            values = [
                dict(zip(("file_name", "transcription", "speaker_id"), row, strict=True)) for row in rows
            ]
            text(source / split / "metadata.jsonl", *json_lines(*values))
    found = imported(capfd, tmp_path, tmp_path / "set")
    assert "layout: audiofolder (" in found.printed
    assert found.sizes() == {"train": 2, "dev": 2, "validated": 4}
    assert found.speakers() == {"s1": 2, "s2": 2}
    assert sorted(found.texts().values()) == ["", "", "in train", "in validation"]
    assert found.left_out() == {"not listed": 2}


def test_voxpopuli(capfd, tmp_path):
    source = tmp_path / "transcribed_data" / "de"
    for split in ("train", "dev", "test"):
        name = f"20130613-PLENARY-11-de_{split}"
        recordings(source / "2013", f"{name}.ogg")
        row = (
            name,
            "Roher Text" if split == "dev" else "",
            "" if split == "dev" else "text",
            "99",
            split,
            "male",
        )
        lacking = ("gone", "", "text", "None", split, "female")
        header = ("id", "raw_text", "normalized_text", "speaker_id", "split", "gender")
        text(source / f"asr_{split}.tsv", *("\t".join(fields) for fields in (header, row, lacking)))
    found = imported(capfd, tmp_path, tmp_path / "transcribed_data")
    assert "layout: voxpopuli (" in found.printed
    assert found.sizes() == {"train": 1, "dev": 1, "test": 1, "validated": 3}
    assert found.speakers() == {"99": 3}
    assert sorted(found.texts().values()) == ["Roher Text", "text", "text"]
    assert found.left_out() == {"missing": 3}


def test_nemo(capfd, tmp_path):
    source = tmp_path / "s"
    sound(source / "wav" / "long.wav", 2.0)
    recordings(source, "wav/short.wav")
    rows = [
        {"audio_filepath": "wav/short.wav", "duration": 0.25, "text": "ganz", "speaker": "a"},
        {
            "audio_filepath": "/elsewhere/wav/long.wav",
            "offset": 0.5,
            "duration": 1.0,
            "text": "teil",
            "speaker": "b",
        },
        {"audio_filepath": "wav/long.wav", "offset": 0.0, "duration": 1.99, "text": "alles", "speaker": "b"},
        {"audio_filepath": "wav/no.wav", "duration": 1.0, "text": "", "speaker": "b"},
        {"audio_filepath": "wav/short.wav", "offset": 0.0, "duration": 0.1, "text": ""},
    ]
    text(source / "train_manifest.json", *json_lines(*rows))
    found = imported(capfd, tmp_path, source)
    assert "layout: nemo (train_manifest.json shows it" in found.printed
    assert found.speakers() == {"a": 1, "b": 2}
    assert found.sizes() == {"train": 3, "validated": 3}
    assert found.left_out() == {"missing": 1, "without a speaker": 1}
    by_text = {row["sentence"]: found.folder / "clips" / row["path"] for row in found.rows}
    assert by_text["alles"].is_symlink()
    assert soundfile.info(by_text["teil"]).frames == 8000
    assert found.texts().keys() == {"short.wav", "wav-long.flac", "wav-long-2.wav"}


def test_several_tables_name_their_splits(capfd, tmp_path):
    source = tmp_path / "s"
    recordings(source, "audio/a.wav", "audio/b.wav")
    for split, names in {"train": "ab", "dev": "b", "holdout": ""}.items():
        text(source / f"{split}.csv", "filename,speaker", *(f"{name}.wav,s_{name}" for name in names))
    found = imported(capfd, tmp_path, source)
    assert found.sizes() == {"train": 1, "dev": 1, "validated": 2}
    assert found.left_out() == {"in two splits": 1}
    assert found.tables["dev"][0]["client_id"] == "s_b"
    assert "transcripts: 0 of 2 recordings, from no column for texts" in found.printed
