"""Layouts in which paths name speakers: folders, LibriSpeech, MLS, Speech Commands, LJSpeech."""

import pytest
import soundfile

from tests.experiments.data.importing.sources import imported, refused, sound, text


def test_folders_are_speakers_and_texts_lie_beside(capfd, tmp_path):
    source = tmp_path / "my recordings"
    for speaker in ("anna", "Jörg Ö", "小林"):
        for take in ("take 1.wav", "take 2.FLAC"):
            sound(source / speaker / take)
    text(source / "anna" / "take 1.txt", 'She said:\t"no"', "  and left ")
    text(source / "Jörg Ö" / "take 2.txt", "schön", encoding="latin-1")
    text(source / "小林" / "take 1.lab", "はい")
    text(source / "notes.txt", "to do")
    found = imported(capfd, tmp_path, source)
    assert found.speakers() == {"anna": 2, "Jörg Ö": 2, "小林": 2}
    assert found.texts()["anna-take 1.wav"] == 'She said: "no" and left'
    assert found.texts()["小林-take 1.wav"] == "はい"
    assert sum(map(bool, found.texts().values())) == 2
    assert found.left_out() == {}
    assert "1 text files beside audio files are not UTF-8" in found.printed
    assert "other text files were not read (such as notes.txt)" in found.printed
    assert "transcripts: 2 of 6 recordings" in found.printed
    assert "none in the source: validated.tsv alone is written" in found.printed
    assert found.sizes() == {"validated": 6}
    assert (found.folder / "clips" / "anna-take 1.wav").is_symlink()


def test_folders_of_one_name_in_different_places_are_told_apart(capfd, tmp_path):
    source = tmp_path / "s"
    for place in ("north/anna", "south/anna", "south/ben", "train/wavs/eva", "test/wavs/eva"):
        sound(source / place / "a.wav")
    found = imported(capfd, tmp_path, source)
    assert found.speakers() == {"north/anna": 1, "south/anna": 1, "ben": 1, "eva": 2}
    assert found.sizes() == {"train": 1, "test": 1, "validated": 5}
    assert "folders named anna are in 2 places (north/anna, south/anna)" in found.printed
    assert "train 1, test 1, in none of them 3; finetune makes dev" in found.printed
    assert len({row["path"].lower() for row in found.rows}) == 5


def test_speakers_whose_names_begin_like_splits(capfd, tmp_path):
    speakers = ("dev_patel", "val-kilmer", "test_01", "Trainor")
    for folder in (*speakers, "train-clean-100/anna", "TEST/ben", "devset/eva", "dev-other_2/ida"):
        sound(tmp_path / "s" / folder / "a.wav")
    found = imported(capfd, tmp_path, tmp_path / "s")
    assert set(found.speakers()) == {*speakers, "anna", "ben", "eva", "ida"}
    assert found.sizes() == {"train": 1, "dev": 2, "test": 1, "validated": 8}
    taken = "TEST (test), dev-other_2 (dev), devset (dev), train-clean-100 (train)"
    assert f"folders taken as splits: {taken}\n" in found.printed


def test_clips_have_names_that_differ_in_more_than_case(capfd, tmp_path):
    names = ("a-b/c.wav", "a/b-c.wav", "a/B-C.wav", "a/b/c.wav", "a/.hidden.wav", "a/" + "é" * 120 + ".wav")
    for name in names:
        sound(tmp_path / "s" / name)
    found = imported(capfd, tmp_path, tmp_path / "s", "--speaker", "one")
    assert len(found.rows) == 5
    assert len({row["path"].casefold() for row in found.rows}) == 5
    assert all(len(row["path"].encode()) < 200 for row in found.rows)
    assert found.speakers() == {"speaker": 5}


def test_a_flat_folder_needs_a_rule_for_speakers(capfd, tmp_path):
    source = tmp_path / "flat"
    for name in ("anna_1", "anna_2", "ben_1", "ben_2"):
        sound(source / "wavs" / f"{name}.wav")
    line = refused(capfd, source, "--out", str(tmp_path / "corpus"))
    assert "no speaker is known for any of the 4 recordings. Give --speaker one" in line
    assert "begin with 2 words (anna, ben), which --speaker '([^/_-]+)[_-][^/]*$' takes" in line
    assert not (tmp_path / "corpus").exists()
    found = imported(capfd, tmp_path, source, "--speaker", "([^/_-]+)[_-][^/]*$")
    assert found.speakers() == {"anna": 2, "ben": 2}


@pytest.mark.parametrize(
    ("rule", "speakers", "left_out"),
    [
        ("file", {"x/a_1": 1, "x/b_1": 1, "y": 1}, {}),
        ("one", {"speaker": 3}, {}),
        ("folder", {"x": 2}, {"without a speaker": 1}),
        ("([ab])_", {"a": 1, "b": 1}, {"without a speaker": 1}),
    ],
)
def test_rules_for_speakers(capfd, tmp_path, rule, speakers, left_out):
    for name in ("x/a_1", "x/b_1", "y"):
        sound(tmp_path / "s" / f"{name}.wav")
    found = imported(capfd, tmp_path, tmp_path / "s", "--speaker", rule)
    assert found.speakers() == speakers
    assert found.left_out() == left_out


def test_audio_that_cannot_be_read_is_counted_and_named(capfd, tmp_path):
    source = tmp_path / "s"
    sound(source / "a" / "good.wav")
    sound(source / "a" / "loud.au", format="AU")
    sound(source / "a" / "disguised.wav", format="AU")
    for name, data in (("call.m4a", b"x"), ("empty.wav", b""), ("words.mp3", b"not audio at all")):
        (source / "a" / name).write_bytes(data)
    (source / "a" / "lfs.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (source / "again").symlink_to(source / "a")
    found = imported(capfd, tmp_path, source)
    assert [row["path"] for row in found.rows] == ["good.wav"]
    assert found.left_out() == {
        ".au file": 1, ".m4a file": 1, "link to a folder": 1, "AU file": 1, "empty": 1, "Git LFS pointer": 1,
        "undecodable": 1,
    }  # fmt: skip
    assert ".m4a file: a/call.m4a (.m4a is not read: convert it" in found.printed


def librispeech(root):
    for subset, speaker in (("train-clean-100", 19), ("dev-other", 116), ("test-clean", 121)):
        folder = root / subset / str(speaker) / "7"
        for number in range(2):
            sound(folder / f"{speaker}-7-000{number}.flac")
        text(
            folder / f"{speaker}-7.trans.txt",
            f"{speaker}-7-0000 WORDS OF {speaker}",
            f"{speaker}-7-0009 NO ONE",
        )
    text(root / "SPEAKERS.TXT", "; about speakers")


def test_librispeech(capfd, tmp_path):
    librispeech(tmp_path / "LibriSpeech")
    found = imported(capfd, tmp_path, tmp_path)
    assert found.speakers() == {"116": 2, "121": 2, "19": 2}
    assert found.sizes() == {"train": 2, "dev": 2, "test": 2, "validated": 6}
    assert found.texts()["19-7-0000.flac"] == "WORDS OF 19"
    assert found.texts()["19-7-0001.flac"] == ""
    assert "layout: librispeech (" in found.printed
    assert "note: 3 transcripts without an audio file" in found.printed


def test_a_subset_of_librispeech_has_no_splits(capfd, tmp_path):
    librispeech(tmp_path / "LibriSpeech")
    found = imported(capfd, tmp_path, tmp_path / "LibriSpeech" / "train-clean-100")
    assert found.sizes() == {"validated": 2}
    assert found.speakers() == {"19": 2}


def test_mls(capfd, tmp_path):
    for split in ("train", "dev", "test"):
        names = [f"48_10_00000{number}" for number in range(2)]
        for name in names:
            sound(tmp_path / "mls_polish" / split / "audio" / "48" / "10" / f"{name}.flac")
        text(
            tmp_path / "mls_polish" / split / "transcripts.txt",
            *(f"{name}\tzdanie {split}" for name in names),
        )
    found = imported(capfd, tmp_path, tmp_path / "mls_polish")
    assert "layout: mls (" in found.printed
    assert found.speakers() == {"48": 6}
    assert found.sizes() == {"train": 2, "dev": 2, "test": 2, "validated": 6}
    assert {row["sentence"] for row in found.tables["dev"]} == {"zdanie dev"}


def test_speech_commands(capfd, tmp_path):
    source = tmp_path / "speech_commands"
    for word in ("yes", "no"):
        for speaker in ("0a7c", "0b56", "0c40"):
            sound(source / word / f"{speaker}_nohash_0.wav")
    sound(source / "_background_noise_" / "pink_noise.wav")
    text(source / "validation_list.txt", "yes/0b56_nohash_0.wav", "no/0b56_nohash_0.wav")
    text(source / "testing_list.txt", "yes/0c40_nohash_0.wav")
    found = imported(capfd, tmp_path, source)
    assert "layout: speech-commands (" in found.printed
    assert found.speakers() == {"0a7c": 2, "0b56": 2, "0c40": 2}
    assert found.sizes() == {"train": 3, "dev": 2, "test": 1, "validated": 6}
    assert found.texts()["yes-0a7c_nohash_0.wav"] == "yes"
    assert found.left_out() == {"background noise": 1}


def test_ljspeech_has_no_speakers(capfd, tmp_path):
    source = tmp_path / "LJSpeech-1.1"
    for name in ("LJ001-0001", "LJ001-0002"):
        sound(source / "wavs" / f"{name}.wav")
    text(source / "metadata.csv", "LJ001-0001|In 1455|in fourteen fifty-five", "LJ001-0002|only these")
    assert "--speaker one" in refused(capfd, source, "--dry-run")
    found = imported(capfd, tmp_path, source, "--speaker", "one")
    assert found.texts() == {"LJ001-0001.wav": "in fourteen fifty-five", "LJ001-0002.wav": "only these"}


def test_lines_of_a_name_and_a_text_mean_the_nearest_recording(capfd, tmp_path):
    source = tmp_path / "voxforge"
    for speaker in ("ada-1", "bob-2"):
        sound(source / speaker / "wav" / "a0001.wav")
        text(source / speaker / "etc" / "PROMPTS", f"{speaker}/mfc/a0001 SPOKEN BY {speaker}", "oneword")
    found = imported(capfd, tmp_path, source, "--texts", "PROMPTS")
    assert {row["client_id"]: row["sentence"] for row in found.rows} == {
        "ada-1": "SPOKEN BY ada-1", "bob-2": "SPOKEN BY bob-2",
    }  # fmt: skip
    assert "note: 2 lines without a name and a text" in found.printed
    text(source / "all.txt", "a0001=anything")
    options = ("--texts", "all.txt", "--texts-line", "(.*)=(.*)", "--dry-run")
    assert "no file below" in refused(capfd, source, "--texts", "none.txt", "--dry-run")
    from experiments.cli import main as cli

    assert cli.main(["data", "import", str(source), *options]) == 0
    assert "1 transcripts that fit several audio files (such as a0001)" in capfd.readouterr().out


def test_lines_that_give_no_transcript_are_counted(capfd, tmp_path):
    sound(tmp_path / "s" / "ada" / "a1.wav")
    text(tmp_path / "s" / "all.txt", "a1=one", "=two", "a1=three")
    options = ("--texts", "all.txt", "--texts-line", r"(\w+)?=(.*)")
    found = imported(capfd, tmp_path, tmp_path / "s", *options)
    assert found.texts() == {"a1.wav": "one"}
    assert "note: 1 lines without a name and a text (such as =two)" in found.printed
    assert "note: 1 duplicate transcripts, which were not used (such as a1)" in found.printed


def test_copies_are_files_of_their_own(capfd, tmp_path):
    original = sound(tmp_path / "s" / "anna" / "a.wav")
    found = imported(capfd, tmp_path, tmp_path / "s", "--copy")
    clip = found.folder / "clips" / "a.wav"
    assert not clip.is_symlink()
    assert clip.read_bytes() == original.read_bytes()
    original.unlink()
    assert soundfile.info(clip).frames == 2000
