"""Preparing releases: counts and audio as decoded directly, the same bytes after any interruption."""

import gzip
import hashlib
import io
import json
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from w2v_jax.data import audio
from w2v_jax.data.common_voice import load_corpus
from w2v_jax.data.prepared import records
from w2v_jax.data.prepared.corpus import PreparedCorpus, load_prepared
from w2v_jax.data.prepared.preparation import prepare
from w2v_jax.data.release.tarball import open_release
from w2v_jax.errors import ClipError, CorpusError

HEADER = "client_id\tpath\tsentence\tup_votes\tage\tgender\taccents\tlocale\tsegment\n"
PREFIX = "cv-corpus-9.0/it"


def mp3(seed: int, seconds: float) -> bytes:
    """A clip as Common Voice has them: mp3 at 48 kHz."""
    rng = np.random.default_rng(seed)
    samples = np.cumsum(rng.standard_normal(int(seconds * 48_000))) * 1e-3
    out = io.BytesIO()
    soundfile.write(out, np.clip(samples, -0.9, 0.9), 48_000, format="MP3")
    return out.getvalue()


def row(number: int, path: str | None = None) -> str:
    path = path or f"clip{number}.mp3"
    age, gender = ("twenties", "")[number % 2], ("male", "female", "")[number % 3]
    return f"speaker{number % 4}\t{path}\tFrase {number}\t2\t{age}\t{gender}\tRoma\tit\t\n"


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    """A release of 16 clips, 11 of them usable, in an order as a tarball may have it."""
    clips = {f"clip{i}.mp3": mp3(i, 0.3 + 0.1 * i) for i in range(12)}
    clips["clip3.mp3"] = b""
    clips["clip5.mp3"] = clips["clip5.mp3"][: len(clips["clip5.mp3"]) // 2]
    clips["clip7.mp3"] = b"not audio"
    clips["unlisted.mp3"] = mp3(99, 0.5)
    rows = [row(i) for i in range(12)]
    validated = [*rows, row(12), row(0), "speaker1\tbad\tline\n", row(13, "../../etc/passwd")]
    files = {f"{PREFIX}/clips/{name}": data for name, data in clips.items()}
    files |= {
        f"{PREFIX}/validated.tsv": (HEADER + "".join(validated)).encode(),
        f"{PREFIX}/train.tsv": (HEADER + rows[0] + rows[1] + rows[2]).encode(),
        f"{PREFIX}/test.tsv": (HEADER + rows[2] + rows[4]).encode(),
        f"{PREFIX}/dev.tsv": HEADER.encode(),
        f"{PREFIX}/reported.tsv": b"sentence\treason\n",
    }
    return files


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz", extra=()) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in [*files.items(), *extra]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def tarball(members, tmp_path_factory) -> Path:
    return write_tar(tmp_path_factory.mktemp("release") / "it.tar.gz", members)


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(tarball, tmp_path_factory) -> Path:
    return prepare(tarball, tmp_path_factory.mktemp("whole") / "it", workers=2, clips_per_shard=3)


def test_counts_splits_and_what_was_left_out(whole):
    corpus = PreparedCorpus(whole)
    assert corpus.splits == ["train", "test", "rest"]
    clips = {split: [corpus.row(n).path for n in corpus.select(split)] for split in corpus.splits}
    # clip2 is in train and in test: the test split keeps it.
    assert clips["train"] == ["clip0.mp3", "clip1.mp3"]
    assert clips["test"] == ["clip2.mp3", "clip4.mp3"]
    assert sorted(clips["rest"]) == sorted(f"clip{i}.mp3" for i in (6, 8, 9, 10, 11))
    reasons = {(skip.path, skip.reason) for skip in corpus.skipped()}
    assert reasons == {
        ("clip2.mp3", "in two splits"),
        ("clip3.mp3", "empty"),
        ("clip5.mp3", "truncated"),
        ("clip7.mp3", "undecodable"),
        ("clip12.mp3", "missing"),
        ("clip0.mp3", "duplicate"),
        ("unlisted.mp3", "not listed"),
        ("validated.tsv, line 16", "malformed row"),
        ("validated.tsv, line 17", "unsafe path"),
    }
    with pytest.raises(CorpusError, match="no split dev: choose from validated, train, test, rest"):
        corpus.select("dev")


def test_audio_equals_a_direct_decode(whole, members):
    corpus = PreparedCorpus(whole)
    for number in corpus.select():
        record = corpus.record(number)
        expected = audio.decode_bytes(members[f"{PREFIX}/clips/{record['path']}"])
        np.testing.assert_array_equal(record["audio"], expected)
        assert corpus.num_samples[number] == len(expected)
        assert record["duration"] == pytest.approx(len(expected) / 16_000)
        index = int(record["path"].removeprefix("clip").removesuffix(".mp3"))
        assert record["sentence"] == f"Frase {index}"
        assert (record["client_id"], record["accent"]) == (f"speaker{index % 4}", "Roma")
        assert corpus.row(number).age == record["age"] == ("twenties", "")[index % 2]


def test_tensorflow_datasets_opens_it_without_this_package(whole):
    code = (
        "import sys, tensorflow_datasets as tfds; b = tfds.builder_from_directory(sys.argv[1]); "
        "s = b.as_data_source('+'.join(b.info.splits)); "
        "assert not any(m.split('.')[0] in ('w2v_jax', 'tensorflow') for m in sys.modules); "
        "print(len(s), s[0]['audio'].dtype, s[0]['path'].decode(), b.info.metadata['sample_rate_hz'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(whole)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["9", "int16", "clip0.mp3", "16000"]


def test_the_same_from_a_plain_tarball_and_like_from_a_folder(whole, members, tmp_path):
    plain = write_tar(tmp_path / "it.tar", members, "w")
    assert digest(prepare(plain, tmp_path / "plain", clips_per_shard=3)) == digest(whole)
    with tarfile.open(plain) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    folder = PreparedCorpus(prepare(tmp_path / "unpacked", tmp_path / "folder"))
    expected = PreparedCorpus(whole)
    assert {folder.row(n).path for n in folder.select()} == {expected.row(n).path for n in expected.select()}
    direct = load_corpus(tmp_path / "unpacked" / PREFIX)
    lazy = load_prepared(tmp_path / "folder")
    by_path = {clip.row.path: clip for clip in lazy.clips}
    for clip in direct.clips:
        np.testing.assert_array_equal(by_path[clip.row.path].samples, clip.samples)
    assert lazy.seconds == pytest.approx(direct.seconds)


def test_another_run_changes_nothing_and_another_release_is_refused(whole, tarball, members, tmp_path):
    before = digest(whole)
    assert prepare(tarball, whole, clips_per_shard=3) == whole
    assert digest(whole) == before
    fewer = {name: data for name, data in members.items() if "clip11" not in name}
    other = write_tar(tmp_path / "other.tar.gz", fewer)
    with pytest.raises(CorpusError, match="holds another release"):
        prepare(other, whole)


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", range(1, 13))
def test_an_interruption_after_any_clip_leaves_no_trace(whole, tarball, tmp_path, after):
    out = tmp_path / "it"

    def stop(now):
        if now.done_clips == after:
            raise Stop

    with pytest.raises(Stop):
        prepare(tarball, out, clips_per_shard=3, on_progress=stop)
    assert not out.exists()
    with pytest.raises(CorpusError, match="not finished"):
        PreparedCorpus(tmp_path / "it.incomplete")
    prepare(tarball, out, clips_per_shard=3)
    assert digest(out) == digest(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize(
    "function",
    ["records._link", "records._write_index", "records._write_metadata", "records.sync", "records.tidy"],
)
def test_an_interruption_while_finishing_leaves_no_trace(whole, tarball, tmp_path, monkeypatch, function):
    def stop(*args, **kwargs):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(f"w2v_jax.data.prepared.{function}", stop)
        with pytest.raises(Stop):
            prepare(tarball, tmp_path / "it", clips_per_shard=3)
    assert not (tmp_path / "it").exists()
    prepare(tarball, tmp_path / "it", clips_per_shard=3)
    assert digest(tmp_path / "it") == digest(whole)


def test_a_damaged_shard_is_made_again(whole, tarball, tmp_path):
    def stop(now):
        if now.done_clips == 11:
            raise Stop

    with pytest.raises(Stop):
        prepare(tarball, tmp_path / "it", clips_per_shard=3, on_progress=stop)
    shards = sorted((tmp_path / "it.incomplete" / "shards").glob("*.array_record"))
    assert shards
    damaged = bytearray(shards[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shards[0].write_bytes(bytes(damaged))
    prepare(tarball, tmp_path / "it", clips_per_shard=3)
    assert digest(tmp_path / "it") == digest(whole)


COMMAND = [sys.executable, "-m", "experiments", "data", "prepare", "--source"]


def test_killed_processes_and_two_at_once(members, tmp_path):
    """kill -9 in the middle; and two processes at once, of which one is told to wait."""
    many = dict(members)
    rows = "".join(row(100 + i) for i in range(400))
    many[f"{PREFIX}/validated.tsv"] += rows.encode()
    clip = mp3(5, 2.0)
    many |= {f"{PREFIX}/clips/clip{100 + i}.mp3": clip for i in range(400)}
    source = write_tar(tmp_path / "many.tar", many, "w")
    whole = prepare(source, tmp_path / "whole")
    argv = [*COMMAND, str(source), "--out", str(tmp_path / "it"), "--workers", "1"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while time.monotonic() < limit and not list(tmp_path.glob("it.incomplete/shards/*.part")):
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    second = subprocess.run(argv, capture_output=True, text=True)
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "is being prepared by another process" in second.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "it").exists()
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "left out:" in done.stdout
    assert digest(tmp_path / "it") == digest(whole)


def test_a_clip_of_a_damaged_test_row_is_not_trained_on(members, tmp_path):
    damaged = dict(members)
    damaged[f"{PREFIX}/test.tsv"] += row(6).encode().replace(b"Frase", b"Fra\tse")
    damaged[f"{PREFIX}/test.tsv"] += row(8).encode().replace(b"Frase", b"\xff")
    corpus = PreparedCorpus(prepare(write_tar(tmp_path / "it.tar", damaged, "w"), tmp_path / "out"))
    held = {corpus.row(n).path for n in corpus.select()}
    assert not {"clip6.mp3", "clip8.mp3"} & held
    reasons = {(skip.path, skip.reason) for skip in corpus.skipped()}
    assert {("clip6.mp3", "malformed row"), ("clip8.mp3", "malformed row")} <= reasons


def test_a_damaged_header_in_the_middle_is_noticed(members, tmp_path):
    path = write_tar(tmp_path / "it.tar", members, "w")
    data = path.read_bytes()
    with tarfile.open(path) as archive:
        offsets = [member.offset for member in archive.getmembers()]
    for offset in offsets:
        path.write_bytes(data[: offset + 20] + bytes([data[offset + 20] ^ 1]) + data[offset + 21 :])
        with pytest.raises(CorpusError, match="damaged"):
            open_release(path)
    path.write_bytes(data + data)
    with pytest.raises(CorpusError, match="damaged"):
        open_release(path)


def test_headers_that_claim_too_much_are_skipped(members, tmp_path):
    out = io.BytesIO()
    soundfile.write(out, np.ones(2000) * 0.1, 1, format="WAV")
    with pytest.raises(ClipError, match="undecodable"):
        audio.decode_bytes(out.getvalue())
    out = io.BytesIO()
    soundfile.write(out, np.ones(2000) * 0.1, 16_000, format="FLAC")
    data = bytearray(out.getvalue())
    data[21:26] = bytes([data[21] | 0x0F, 255, 255, 255, 255])  # the number of samples in STREAMINFO
    with pytest.raises(ClipError, match="truncated: 2000 samples are there, of 68719476735"):
        audio.decode_bytes(bytes(data))


def test_texts_may_be_long(members, tmp_path):
    long = dict(members)
    long[f"{PREFIX}/validated.tsv"] = members[f"{PREFIX}/validated.tsv"].replace(b"Roma", b"R" * 100_000, 1)
    corpus = PreparedCorpus(prepare(write_tar(tmp_path / "it.tar", long, "w"), tmp_path / "out"))
    assert set(corpus.column("accent", corpus.select())) <= {"Roma", "R" * 100_000}
    assert (corpus.folder / records.INDEX).stat().st_size < 200_000
    again = pickle.loads(pickle.dumps(corpus))
    assert again.row(0) == corpus.row(0)


def test_a_full_disk_is_an_error_that_says_so_and_loses_nothing(members, whole, tarball, tmp_path):
    code = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        "runpy.run_module('experiments', run_name='__main__')"
    )
    argv = [
        sys.executable,
        "-c",
        code,
        "data",
        "prepare",
        "--source",
        str(tarball),
        "--out",
        str(tmp_path / "it"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "the same command continues" in done.stderr
    assert not (tmp_path / "it").exists()
    for leftover in (tmp_path / "it.incomplete").glob("source.json"):
        leftover.write_text(leftover.read_text().replace(": 1024", ": 3"))
    prepare(tarball, tmp_path / "it", clips_per_shard=3)
    assert digest(tmp_path / "it") == digest(whole)


def test_an_empty_folder_may_become_the_data_set(tarball, whole, tmp_path, monkeypatch):
    (tmp_path / "it").mkdir()
    prepare(tarball, tmp_path / "it", clips_per_shard=3)
    assert digest(tmp_path / "it") == digest(whole)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert prepare(tarball, Path("."), clips_per_shard=3) == tmp_path / "here"


def truncated_at(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_tarball_cut_short_is_never_taken_for_whole(tarball, tmp_path, share, compressed):
    data = tarball.read_bytes() if compressed else gzip.decompress(tarball.read_bytes()).rstrip(b"\0")
    (tmp_path / "cut.tar").write_bytes(truncated_at(data, share))
    with pytest.raises(CorpusError, match="no tarball, or a damaged one or one cut short"):
        prepare(tmp_path / "cut.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_that_stops_between_two_members_is_not_whole(tmp_path, members):
    plain = write_tar(tmp_path / "whole.tar", members, "w").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as archive:
        cuts = [member.offset for member in archive.getmembers()][1:]
    for cut in cuts[:3] + cuts[-3:]:
        (tmp_path / "cut.tar").write_bytes(plain[:cut])
        with pytest.raises(CorpusError, match="cut short"):
            open_release(tmp_path / "cut.tar")


def test_a_wrong_checksum_is_noticed(tarball, tmp_path):
    data = bytearray(tarball.read_bytes())
    data[-6] ^= 1
    (tmp_path / "bad.tar.gz").write_bytes(bytes(data))
    with pytest.raises(CorpusError, match="damaged"):
        open_release(tmp_path / "bad.tar.gz")


@pytest.mark.parametrize("name", ["../evil.mp3", "/etc/evil", f"{PREFIX}/clips/../../../x.mp3"])
def test_members_that_lead_outside_are_refused(members, tmp_path, name):
    path = write_tar(tmp_path / "evil.tar.gz", members, extra=[(name, b"x")])
    with pytest.raises(CorpusError, match="leads outside"):
        open_release(path)


def test_links_and_repeated_members_are_not_followed(members, tmp_path):
    path = tmp_path / "links.tar"
    write_tar(path, members, "w", extra=[(f"{PREFIX}/clips/clip0.mp3", b"another")])
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo(f"{PREFIX}/clips/clip12.mp3")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    corpus = PreparedCorpus(prepare(path, tmp_path / "out"))
    reasons = {(skip.path, skip.reason, skip.detail) for skip in corpus.skipped()}
    assert ("clip0.mp3", "duplicate", "twice in the archive; the first one counts") in reasons
    assert any(path == "clip12.mp3" and reason == "missing" for path, reason, _ in reasons)
    first = next(n for n in corpus.select() if corpus.row(n).path == "clip0.mp3")
    expected = audio.decode_bytes(members[f"{PREFIX}/clips/clip0.mp3"])
    np.testing.assert_array_equal(corpus.samples(first), expected)


def test_names_of_any_bytes_are_listed(members, tmp_path):
    odd = [b"a\tb\nc.mp3", b"\xff\xfe.mp3", "a\u2028b\x85.mp3".encode()]
    extra = [(f"{PREFIX}/clips/{name.decode(errors='surrogateescape')}", b"x") for name in odd]
    corpus = PreparedCorpus(prepare(write_tar(tmp_path / "it.tar", members, "w", extra), tmp_path / "out"))
    listed = {skip.path for skip in corpus.skipped() if skip.reason == "not listed"}
    assert listed == {"unlisted.mp3", "a b c.mp3", r"\udcff\udcfe.mp3", "a\u2028b\x85.mp3"}


def test_other_files_layouts_and_locales(members, tmp_path):
    (tmp_path / "text.tar.gz").write_text("hello" * 1000)
    with pytest.raises(CorpusError, match="no tarball"):
        open_release(tmp_path / "text.tar.gz")
    other = write_tar(tmp_path / "other.tar.gz", {"LibriSpeech/a.flac": b"x"})
    with pytest.raises(CorpusError, match=r"no validated\.tsv: expected the layout"):
        open_release(other)
    with pytest.raises(CorpusError, match="no such file or folder"):
        open_release(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="has no locale de: choose --locale from it"):
        open_release(write_tar(tmp_path / "it.tar.gz", members), "de")
    both = members | {name.replace("/it/", "/en/"): data for name, data in members.items()}
    path = write_tar(tmp_path / "both.tar.gz", both)
    with pytest.raises(CorpusError, match=r"several locales \(en, it\)"):
        open_release(path)
    assert open_release(path, "en").locale == "en"


def test_no_usable_clip_at_all(members, tmp_path):
    empty = {name: (b"" if "/clips/" in name else data) for name, data in members.items()}
    with pytest.raises(CorpusError, match=r"none of the 13 clips can be used: .*1 missing, .*12 empty"):
        prepare(write_tar(tmp_path / "empty.tar.gz", empty), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_files_of_a_prepared_folder_are_noticed(tarball, tmp_path):
    folder = prepare(tarball, tmp_path / "it")
    next(folder.glob("*rest.array_record*")).unlink()
    with pytest.raises(CorpusError, match="lacks 1 of its files"):
        PreparedCorpus(folder)
    (folder / records.MANIFEST).unlink()
    with pytest.raises(CorpusError, match="not a prepared data set"):
        PreparedCorpus(folder)


def test_the_tfds_builder_gives_the_same_clips(tarball, whole, tmp_path):
    from w2v_jax.data.prepared.tfds_builder import CommonVoice

    builder = CommonVoice(source=tarball, data_dir=tmp_path)
    assert builder.data_dir != CommonVoice(source=tarball.parent, data_dir=tmp_path).data_dir
    builder.download_and_prepare()
    source, expected = builder.as_data_source("validated"), PreparedCorpus(whole)
    assert len(source) == len(expected)
    for number in expected.select():
        np.testing.assert_array_equal(source[int(number)]["audio"], expected.samples(number))
        assert source[int(number)]["path"].decode() == expected.row(number).path


@pytest.mark.parametrize(
    ("name", "clips"),
    [pytest.param("speechocean762", 1024, marks=pytest.mark.slow), ("italian_prompts", 488)],
)
def test_recorded_corpora_are_prepared_whole(corpora, tmp_path, name, clips):
    corpus = load_prepared(prepare(corpora / name, tmp_path / name, workers=2))
    direct = load_corpus(next((corpora / name).iterdir()))
    assert len(corpus.clips) == len(direct.clips) == clips
    by_path = {clip.row.path: clip for clip in corpus.clips}
    for clip in direct.clips[::7]:
        np.testing.assert_array_equal(by_path[clip.row.path].samples, clip.samples)
    manifest = json.loads((tmp_path / name / records.MANIFEST).read_text())
    assert sum(split["clips"] for split in manifest["splits"].values()) == clips
