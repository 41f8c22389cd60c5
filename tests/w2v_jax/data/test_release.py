"""Layouts and names as people have them: one reader for folders and for prepared data."""

import io
import shutil
import tarfile
import unicodedata
import zipfile

import numpy as np
import pytest
import soundfile

from w2v_jax.data.common_voice import FolderCorpus, load_corpus
from w2v_jax.data.prepared.corpus import PreparedCorpus
from w2v_jax.data.prepared.preparation import prepare
from w2v_jax.data.release.clip_names import ClipNames
from w2v_jax.data.release.tarball import open_release
from w2v_jax.errors import CorpusError

HEADER = "client_id\tpath\tsentence\n"
CLIP = io.BytesIO()
soundfile.write(CLIP, 0.1 * np.random.default_rng(0).standard_normal(3000), 16_000, format="WAV")


def write(folder, tables, clips):
    """A locale's folder: table -> names that it lists, or its text; and the files of clips/."""
    (folder / "clips").mkdir(parents=True)
    for name in clips:
        (folder / "clips" / name).write_bytes(CLIP.getvalue())
    for table, listed in tables.items():
        text = (
            listed
            if isinstance(listed, str)
            else HEADER
            + "".join(f"s{number}\t{name}\tsentence {number}\n" for number, name in enumerate(listed))
        )
        (folder / table).write_text(text, encoding="utf-8")
    return folder


def readers(source, tmp_path):
    """The folder as it is, prepared, and prepared from its tarball."""
    with tarfile.open(tmp_path / "release.tar", "w") as archive:
        archive.add(source, source.name)
    return [
        FolderCorpus(source),
        PreparedCorpus(prepare(source, tmp_path / "from-folder")),
        PreparedCorpus(prepare(tmp_path / "release.tar", tmp_path / "from-tarball")),
    ]


def content(reader):
    """Names by split, and what is listed; files that no table lists are known to prepared data alone."""
    held = {split: sorted(reader.listed(split, "path")) for split in ("validated", *reader.splits)
            if split != "rest"}  # fmt: skip
    corpus = reader.load()
    skipped = {(s.path, s.reason, s.split) for s in corpus.skipped if s.reason != "not listed"}
    return held, skipped, {(change.path, change.reason) for change in corpus.changed}


def test_a_clip_in_two_splits_is_in_one_for_every_reader_and_counted_once(tmp_path):
    names = [f"{n}.wav" for n in range(8)]
    tables = {
        "validated.tsv": names,
        "train.tsv": names[:6],
        "dev.tsv": [names[5], names[6]],
        "test.tsv": [names[0], names[7]],
    }
    for reader in readers(write(tmp_path / "xx", tables, names), tmp_path):
        held, skipped, changed = content(reader)
        assert held["train"] == names[1:5]
        assert (held["dev"], held["test"], held["validated"]) == (names[5:7], [names[0], names[7]], names)
        assert skipped == {("0.wav", "in two splits", "train"), ("5.wav", "in two splits", "train")}
        assert not changed
        assert [reader.load(split).skipped_by_reason() for split in ("train", "dev", "test")] == [
            {"in two splits": 2}, {}, {},
        ]  # fmt: skip


def test_names_are_found_as_releases_and_file_systems_spell_them(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "è.wav") for form in ("NFC", "NFD"))
    clips = ["hash1.mp3", decomposed, "converted.wav", "Upper.wav", "plain.wav"]
    listed = ["hash1", composed, "converted.mp3", "upper.wav", "plain.wav", "gone.mp3"]
    for reader in readers(write(tmp_path / "xx", {"validated.tsv": listed}, clips), tmp_path):
        held, skipped, changed = content(reader)
        assert held["validated"] == sorted(["hash1.mp3", decomposed, "converted.wav", "plain.wav"])
        assert {path for path, _ in changed} == {"hash1.mp3", decomposed, "converted.wav"}
        assert skipped == {("upper.wav", "missing", "rest"), ("gone.mp3", "missing", "rest")}
        details = {skip.path: skip.detail for skip in reader.load().skipped}
        assert details["upper.wav"] == "not in clips, but Upper.wav is"


def test_suffixes_in_capitals_are_another_suffix_and_a_near_name_is_said():
    names = ClipNames(["c0.WAV", "C1.wav", "d.wav", "d.FLAC", "notes.txt"])
    assert names.find("c0.mp3") == names.find("c0.wav") == ("c0.WAV", "another suffix")
    assert names.find("c0") == ("c0.WAV", "the table has no suffix")
    assert names.find("c1.mp3") is names.find("d.mp3") is None
    assert [names.near(path) for path in ("c1.mp3", "c 1", "d.mp3")] == ["C1.wav", "C1.wav", "d.FLAC"]
    assert names.near("notes.mp3") is names.near("e.mp3") is None
    assert ClipNames(["A.mp3", "A.WAV"]).near("a.mp3") == "A.mp3"


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    folder = write(tmp_path / "xx", {}, ["a.wav"])
    (folder / "validated.tsv").write_bytes(HEADER.encode("utf-16-le"))
    for read in (load_corpus, lambda source: prepare(source, tmp_path / "out")):
        with pytest.raises(CorpusError, match=r"validated\.tsv: UTF-16 without a byte order mark"):
            read(folder)


def test_two_rows_of_one_file_and_ambiguous_names(tmp_path):
    names = ClipNames(["a.wav", "a.flac", "b.mp3"])
    assert names.find("a.mp3") is None  # which one?
    assert names.find("b") == ("b.mp3", "the table has no suffix")
    folder = write(tmp_path / "xx", {"validated.tsv": ["b.mp3", "b", "c.wav"]}, ["b.mp3", "c.wav"])
    corpus = load_corpus(folder)
    assert (len(corpus.clips), corpus.skipped_by_reason()) == (2, {"duplicate": 1})


@pytest.mark.parametrize("depth", ["cv/en", "parent/cv/en"])
def test_a_release_is_found_from_above_by_every_reader(tmp_path, depth):
    folder = write(tmp_path / depth, {"validated.tsv": ["a.wav"]}, ["a.wav"])
    top = tmp_path / depth.split("/", 1)[0]
    assert FolderCorpus(top).folder == folder
    assert open_release(top).locale == "en"
    shutil.copytree(folder, folder.parent / "it")
    with pytest.raises(CorpusError, match=r"several locales \(en, it\): name one of them"):
        FolderCorpus(top)


def test_tables_with_a_header_alone_or_broken_do_not_stop_a_preparation(tmp_path):
    names = [f"{n}.wav" for n in range(4)]
    tables = {
        "validated.tsv": names,
        "train.tsv": '"client_id"\t"path"\t"sentence"\n',
        "dev.tsv": HEADER,
        "test.tsv": "speaker|path\ns|2.wav\n0,3.wav\n",
    }
    for reader in readers(write(tmp_path / "xx", tables, names), tmp_path):
        held, skipped, _ = content(reader)
        # What a table that cannot be read names may be meant for evaluation.
        assert held["validated"] == ["0.wav", "1.wav"]
        assert {(path, reason) for path, reason, _ in skipped} == {
            ("test.tsv", "unreadable table"),
            ("2.wav", "malformed row"),
            ("3.wav", "malformed row"),
        }


LAYOUTS = {
    "release 1": ({"cv-valid-train.csv": "filename,text\n"}, "does not name its speakers"),
    "spontaneous": ({"ss-corpus-en.tsv": "client_id\taudio_file\n"}, "spontaneous speech"),
    "delta": ({"other.tsv": ["a.wav"]}, r"only other\.tsv .*--split other"),
    "csv": ({"validated.csv": "client_id,path\n"}, r"rename it to validated\.tsv"),
    "nothing": ({"notes.tsv": "x\n"}, r"has no validated\.tsv: expected the layout"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_cannot_be_read_are_named_by_every_reader(tmp_path, layout):
    tables, expected = LAYOUTS[layout]
    folder = write(tmp_path / "xx", tables, ["a.wav"])
    for read in (FolderCorpus, open_release):
        with pytest.raises(CorpusError, match=expected) as caught:
            read(folder)
        assert "\n" not in str(caught.value)
    if layout == "delta":
        assert [clip.row.path for clip in load_corpus(folder, "other").clips] == ["a.wav"]


def test_the_hugging_face_mirror_is_named(tmp_path):
    write(tmp_path / "hub" / "transcript" / "en", {"train.tsv": ["a.wav"]}, [])
    for read in (FolderCorpus, open_release):
        with pytest.raises(CorpusError, match=r"Hugging Face mirror \(transcript/en\)"):
            read(tmp_path / "hub")


def test_archives_that_are_no_tarballs_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        archive.writestr("xx/validated.tsv", HEADER)
    (tmp_path / "r.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(50))
    (tmp_path / "r.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(50))
    (tmp_path / "r.tar.gz").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "page.tar.gz").write_bytes(b"\xef\xbb\xbf\n<!DOCTYPE html><html></html>")
    (tmp_path / "error.tar").write_bytes(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>')
    (tmp_path / "validated.tsv").write_bytes(HEADER.encode("utf-16"))
    (tmp_path / "table.tar").write_text(HEADER)
    for name, expected in (
        ("r.zip", "zip archive: unpack it"), ("r.7z", "7z archive"), ("r.tar.zst", "zstd -d"),
        ("r.tar.gz", "git lfs pull"), ("page.tar.gz", "is a web page"), ("error.tar", "is a web page"),
        ("validated.tsv", "is a table, not a release"), ("table.tar", "is a table"),
    ):  # fmt: skip
        with pytest.raises(CorpusError, match=expected):
            open_release(tmp_path / name)


def test_what_cannot_be_used_is_counted_before_it_is_gone(tmp_path):
    folder = write(tmp_path / "xx", {"validated.tsv": [f"x{n}.wav" for n in range(8)]}, ["y.wav"])
    for read in (load_corpus, lambda source: prepare(source, tmp_path / "out")):
        with pytest.raises(CorpusError, match=r"none of the 8 clips.* can be used: 8 missing"):
            read(folder)
    for name in range(8):
        (folder / "clips" / f"x{name}.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CorpusError, match=r"8 Git LFS pointer \(e\.g\. x0\.wav: run `git lfs pull`"):
        load_corpus(folder)


def test_changed_clips_are_listed_by_every_reader(tmp_path):
    folder = write(tmp_path / "xx", {"validated.tsv": ["hot.wav", "usual.wav"]}, ["usual.wav"])
    loud = np.random.default_rng(0).standard_normal(3000) * 5000
    soundfile.write(folder / "clips" / "hot.wav", loud, 16_000, subtype="FLOAT")
    for reader in readers(folder, tmp_path):
        (change,) = reader.load().changed
        assert (change.path, change.reason, change.split) == ("hot.wav", "scaled", "rest")
        assert "divided by 32768" in change.detail
    assert reader.manifest["changed_by_reason"] == {"scaled": 1}


def test_a_set_that_was_prepared_by_other_rules_is_not_taken_for_new(tmp_path):
    folder = write(tmp_path / "xx", {"validated.tsv": ["a.wav"]}, ["a.wav"])
    out = prepare(folder, tmp_path / "out")
    manifest = out / "prepared.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    (out / "changed.tsv").unlink()
    with pytest.raises(CorpusError, match="another version of w2v-jax"):
        prepare(folder, out)
    assert len(PreparedCorpus(out).load().clips) == 1
