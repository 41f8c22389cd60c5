"""`data import` refuses bad input in one line, and leaves nothing behind."""

import json

import pytest

from experiments.cli import main as cli
from experiments.data.importing import command, layouts, summary, writing
from experiments.pretrain.recipes import PRESETS
from tests.experiments.data.importing.sources import imported, refused, sound, text
from w2v_jax.errors import UserError


@pytest.fixture
def source(tmp_path):
    sound(tmp_path / "s" / "anna" / "a.wav")
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "--out is missing"),
        (["--dry-run", "--layout", "kaldy"], "kaldi"),
        (["--dry-run", "--layout", "kaldi"], "no wav.scp below"),
        (["--dry-run", "--layout", "lhotse"], "holds neither cuts nor recordings"),
        (["--dry-run", "--layout", "nemo"], "holds no table of the layout nemo"),
        (["--dry-run", "--layout", "mls"], "matches transcripts.txt: no transcripts"),
        (["--dry-run", "--layout", "fairseq"], "no manifest of fairseq below"),
        (["--dry-run", "--speaker", "(a"], "--speaker is no regular expression"),
        (["--dry-run", "--texts-line", "(.*) (.*)"], "--texts-line has a meaning with --texts alone"),
        (["--dry-run", "--texts", ""], "--texts takes a file's name such as *.trans.txt, got ''"),
        (["--dry-run", "--texts", "."], "--texts takes a file's name"),
        (["--dry-run", "--texts", "x", "--texts-line", "(.*)"], "--texts-line needs 2 groups"),
        (["--dry-run", "--table", "none.tsv"], "--table: no such file or folder"),
        (["--dry-run", "--table", "t.tsv", "--layout", "nemo"], "leave --layout and --texts out"),
        (["--dry-run", "--text-column", "words"], "not for folders: give --table FILE"),
        (["--dry-run", "--layout", "kaldi", "--texts", "x"], "--texts is for folders, librispeech"),
        (["--dry-run", "--locale", "../de"], "--locale takes a language"),
        (["--dry-run", "--speaker", "(ben)"], "no speaker is known for any of the 1 recordings"),
    ],
)
def test_mistakes_are_one_line(capfd, source, argv, expected):
    assert expected in refused(capfd, source, *argv)


def test_sources_without_recordings_are_refused(capfd, tmp_path, source):
    assert "no such folder or table" in refused(capfd, tmp_path / "none", "--dry-run")
    (tmp_path / "empty").mkdir()
    assert "holds no files" in refused(capfd, tmp_path / "empty", "--dry-run")
    text(tmp_path / "papers" / "read me.txt", "words")
    assert "no recordings in a layout that is known (kaldi" in refused(
        capfd, tmp_path / "papers", "--dry-run"
    )
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "1.m4a").write_bytes(b"x")
    assert "1.m4a (.m4a is not read: convert" in refused(capfd, tmp_path / "phone", "--dry-run")
    sound(source / "anna" / "a.wav").write_bytes(b"")
    assert "none of the 1 recordings can be used: 1 empty" in refused(capfd, source, "--dry-run")


def test_a_corpus_in_the_layout_already_is_named(capfd, tmp_path, source):
    found = imported(capfd, tmp_path, source, "--locale", "xx")
    line = refused(capfd, found.folder.parent, "--dry-run")
    assert "in the layout of Common Voice already (validated.tsv and clips/)" in line


def test_what_is_there_stays(capfd, tmp_path, source):
    out = tmp_path / "out"
    text(out / "mine.txt", "precious")
    assert "exists already and is not an empty folder" in refused(capfd, source, "--out", str(out))
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (tmp_path / "corpus").mkdir()
    assert len(imported(capfd, tmp_path, source).rows) == 1


def test_folders_that_cannot_be_written_are_refused_before_the_work(capfd, tmp_path, source, monkeypatch):
    monkeypatch.setattr(layouts, "understand", None)
    empty, link = tmp_path / "empty", tmp_path / "link"
    empty.mkdir()
    link.symlink_to(empty)
    assert f"is a link: name the folder {empty} itself" in refused(capfd, source, "--out", str(link))
    below = source / "anna" / "a.wav" / "x" / "y"
    assert "a.wav is not a folder, so" in refused(capfd, source, "--out", str(below))
    monkeypatch.chdir(empty)
    for current in (".", str(empty)):
        assert "is the current folder" in refused(capfd, source, "--out", current)
    assert list(empty.iterdir()) == []


def test_a_dry_run_writes_nothing(capfd, tmp_path, source):
    out = tmp_path / "out"
    assert cli.main(["data", "import", str(source), "--out", str(out), "--dry-run"]) == 0
    printed = capfd.readouterr().out
    assert "recordings: 1, " in printed
    assert "speakers: 1 (anna), from names of folders" in printed
    assert "dry run: nothing was written" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


def test_an_import_that_fails_leaves_nothing(capfd, tmp_path, source, monkeypatch):
    def fail(*args, **kwargs):
        raise UserError("cannot be cut")

    monkeypatch.setattr(writing, "write_record", fail)
    assert "cannot be cut" in refused(capfd, source, "--out", str(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


def test_the_record_tells_where_clips_come_from(capfd, tmp_path, source):
    (source / "anna" / "b.m4a").write_bytes(b"x")
    record = imported(capfd, tmp_path, source).record
    assert record["clips"] == {
        "a.wav": {"path": str(source / "anna" / "a.wav"), "frames": None, "channel": None}
    }
    assert [skip["path"] for skip in record["left_out"]] == ["anna/b.m4a"]
    assert (record["layout"], record["recordings"], record["speakers"]) == ("folders", 1, 1)
    assert record["provenance"]["command"]


@pytest.mark.parametrize(
    ("speakers", "expected"),
    [(1, " --partition iid --heldout-speakers 0"), (2, " --clients 1"), (10, " --clients 9"), (11, "")],
)
def test_the_next_command_is_one_that_works(capfd, tmp_path, speakers, expected):
    for number in range(speakers):
        sound(tmp_path / "s" / f"voice{number}" / "a.wav")
    printed = imported(capfd, tmp_path, tmp_path / "s").printed
    assert printed.endswith(f"and w2v-jax pretrain --data {tmp_path / 'corpus'}{expected}\n")
    assert PRESETS["ten-clients"].clients == summary.DEFAULT_CLIENTS


def test_spontaneous_speech_of_common_voice(capfd, tmp_path):
    source = tmp_path / "sps-corpus-1.0-en"
    sound(source / "audios" / "spontaneous-speech-en-1.mp3", subtype="MPEG_LAYER_III")
    header = "client_id\taudio_id\taudio_file\tduration_ms\tprompt\ttranscription\tsplit"
    row = "c0ffee\t1\tspontaneous-speech-en-1.mp3\t250\tWhat?\twell [um] so\tdev"
    text(source / "ss-corpus-en.tsv", header, row)
    assert cli.main(["data", "describe", str(source)]) == 2
    assert "data import FOLDER --table ss-corpus-en.tsv --out DIR" in capfd.readouterr().err
    found = imported(capfd, tmp_path, source, "--table", "ss-corpus-en.tsv")
    assert found.tables["dev"] == [
        {"client_id": "c0ffee", "path": "spontaneous-speech-en-1.mp3", "sentence": "well [um] so"}
    ]


def test_every_layout_can_be_forced():
    assert set(command.Layout.__args__) == set(layouts.NAMES)
    assert set(layouts.NAMES) == {*layouts.TABLES, *layouts.MANIFESTS, *layouts.folders.LAYOUTS}


def test_a_folder_without_tables_names_the_import(capfd, source):
    for argv in (
        ["data", "describe", str(source)],
        ["data", "prepare", "--source", str(source), "--out", "x"],
    ):
        assert cli.main(argv) == 2
        assert "w2v-jax data import FOLDER --out DIR" in capfd.readouterr().err


def test_names_of_bytes_that_are_no_utf8(capfd, tmp_path):
    folder = tmp_path / "s" / "anna"
    sound(folder / "a.wav").rename(folder / b"caf\xe9.wav".decode("utf-8", "surrogateescape"))
    found = imported(capfd, tmp_path, tmp_path / "s")
    assert len(found.rows) == 1
    assert json.dumps(found.record)
