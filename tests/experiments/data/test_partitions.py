import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.data import corpora, partitions
from experiments.options import arguments
from experiments.pretrain import report_facts
from experiments.pretrain.options import PretrainArguments
from experiments.pretrain.run import Pretraining
from experiments.pretrain.settings import resolve
from experiments.process.files import read_json
from experiments.runs.folder import RunFolder
from w2v_jax.data.common_voice import Clip, Corpus, column, lengths
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.data.tables import ClipRow
from w2v_jax.errors import CorpusError


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    return [
        Clip(
            row=ClipRow(client_id=f"s{i % 12:02d}", path=f"{i:03d}", accent=("Roma", "Milano")[i % 2]),
            samples=np.zeros(int(rng.integers(16_000, 80_000)), np.int16),
        )
        for i in range(120)
    ]


def speakers_of(clips, dealt):
    return [{clips[i].row.client_id for i in held} for held in dealt.clients.values()]


@pytest.mark.parametrize("kind", ["balanced", "speakers", "dirichlet", "dirichlet-equal"])
def test_speakers_are_never_split(clips, kind):
    dealt = partitions.deal(clips, kind, None if kind == "speakers" else 4, 0)
    held = speakers_of(clips, dealt)
    assert sum(map(len, held)) == len(set().union(*held)) == 12
    assert sorted(i for indices in dealt.clients.values() for i in indices) == list(range(120))
    assert len(dealt.clients) == (12 if kind == "speakers" else 4)


def test_iid_clients_share_speakers(clips):
    held = speakers_of(clips, partitions.deal(clips, "iid", 4, 0))
    assert all(len(speakers) > 8 for speakers in held)


def test_the_file_says_who_holds_what_and_changes_with_it(clips):
    dealt = partitions.deal(clips, "balanced", 4, 0)
    content = json.loads(json.dumps(partitions.to_file(clips, dealt)))
    assert content["rule"] == {"kind": "balanced", "seed": 0, "clients": 4}
    assert [set(names) for names in content["speakers"].values()] == speakers_of(clips, dealt)
    seconds = [lengths([clips[i] for i in held]).sum() / 16_000 for held in dealt.clients.values()]
    low, middle, high = content["summary"]["seconds_min_median_max"]
    np.testing.assert_allclose([low, middle, high], [min(seconds), np.median(seconds), max(seconds)])
    assert content == partitions.to_file(clips, partitions.deal(clips, "balanced", 4, 0))
    for other in (partitions.deal(clips, "balanced", 5, 0), partitions.deal(clips, "iid", 4, 0)):
        assert partitions.to_file(clips, other)["sha256"] != content["sha256"]


def test_nothing_to_skew_is_an_error(clips):
    with pytest.raises(CorpusError, match=r"all speakers have the same age \(none given\)"):
        partitions.deal(clips, "dirichlet", 4, 0, skewed="age")


def test_speakers_can_be_kept_out(clips, tmp_path):
    corpus = Corpus(folder=tmp_path, split="validated", clips=clips, skipped=[])
    kept = partitions.without_speakers(corpus, {"s01", "s02"})
    assert set(column(kept.clips, "client_id")) == {f"s{i:02d}" for i in range(12)} - {"s01", "s02"}
    others = {"dev": {"s01", "s03"}, "test": set(), "made": None}
    assert partitions.overlap(kept.clips, others) == {"dev": 1, "test": 0, "made": None}
    with pytest.raises(CorpusError, match="no clips are left"):
        partitions.without_speakers(corpus, {f"s{i:02d}" for i in range(12)})


def test_the_federated_view_reads_when_a_batch_is_asked_for(clips):
    read = []

    class Watched:
        def __init__(self, clip):
            self.row, self.num_samples, self.seconds, self._clip = (
                clip.row,
                clip.num_samples,
                clip.seconds,
                clip,
            )

        @property
        def samples(self):
            read.append(self.row.path)
            return self._clip.samples

    watched = [Watched(clip) for clip in clips]
    dealt = partitions.deal(clips, "balanced", 4, 0)
    data = partitions.federated_view(watched, dealt, crop_samples=8000)
    assert data.num_clients() == 4
    assert data.client_size(b"client_0002") == len(dealt.clients["client_0002"])
    read.clear()  # run-time type checks look at clips too
    batches = iter(data.get_client(b"client_0002").batch(batch_size=5))
    first = next(batches)
    assert first["waveform"].shape == (5, 8000)
    expected = [clips[i] for i in dealt.clients["client_0002"][:5]]
    np.testing.assert_array_equal(first["num_samples"], np.minimum(lengths(expected), 8000))
    assert set(read) <= {clip.row.path for clip in expected} | {clips[0].row.path}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, SyntheticConfig(speakers=8, clips_per_speaker=3, words=20, seed=4))
    return folder


@pytest.fixture
def prepared(corpus, tmp_path):
    """The corpus with one clip under another name, prepared."""
    out, source = tmp_path / "set", tmp_path / "source"
    shutil.copytree(corpus, source)
    clip = min(source.rglob("clips/*.flac"))
    clip.rename(clip.with_suffix(".FLAC"))
    assert cli.main(["data", "prepare", "--source", str(source), "--out", str(out)]) == 0
    return out


WITHOUT_OTHERS = [
    "--rounds", "1", "--partition", "speakers", "--clients-per-round", "2", "--local-steps", "1",
    "--batch", "2", "--seconds", "0.6", "--heldout-speakers", "1",
    "--exclude-speakers-of", "dev", "test",
]  # fmt: skip


def check_clients(prepared, run):
    """The clients of a run are the speakers that are neither dev's, test's nor held out."""
    outside = {split: set(corpora.listed(str(prepared), split, "client_id")) for split in ("dev", "test")}
    assert all(outside.values())
    content, clips = read_json(run / "partition.json"), read_json(run / "clips.json")
    inside = {name for names in content["speakers"].values() for name in names}
    assert not inside & set().union(*outside.values())
    assert clips["speakers_also_in"] == {"dev": 0, "test": 0}
    assert len(content["speakers"]) == 8 - len(set().union(*outside.values())) - 1
    assert len(clips["clients"]) == len(content["speakers"])


def test_prepared_corpora_are_described_and_dealt(capfd, prepared, tmp_path):
    """data prepare -> data describe -> what pretrain begins with, with dev's and test's speakers kept out."""
    printed = capfd.readouterr().out
    assert "left out: nothing" in printed
    assert f"changed: 1 other name (listed in {prepared / 'changed.tsv'})" in printed
    assert cli.main(["data", "describe", str(prepared), "--out", str(tmp_path / "about")]) == 0
    about = read_json(tmp_path / "about" / "describe.json")
    assert (about["clips"], about["speakers"]) == (24, 8)
    assert sum(row["clips"] for row in about["length_histogram"]) == 24
    options = arguments.parse(
        PretrainArguments, ["--data", str(prepared), *WITHOUT_OTHERS], "w2v-jax pretrain"
    )
    folder = RunFolder(tmp_path / "run", resolve(options), {})
    Pretraining(folder.settings, folder)
    folder.close()
    check_clients(prepared, tmp_path / "run")


@pytest.mark.slow
def test_prepared_corpora_are_pre_trained_on(prepared, tmp_path):
    run = tmp_path / "run"
    argv = ["-m", "experiments", "pretrain", "--data", str(prepared), "--out", str(run), *WITHOUT_OTHERS]
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"changed: 1 other name (listed in {run / 'clips.json'})" in done.stdout
    assert "skipped: none; changed: 1 other name" in (run / "report.md").read_text()
    check_clients(prepared, run)


def test_speakers_of_other_splits_that_are_not_known_are_reported_so():
    also_in = {"dev": None, "test": 3, "train": 0}
    assert report_facts._clients({"speakers_also_in": also_in}).endswith(
        "other splits: unknown of dev, 3 of test"
    )
    assert "other splits" not in report_facts._clients({"speakers_also_in": {"dev": 0}})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["data", "prepare", "--source", "/no/such.tar.gz", "--out", "x"], "no such file or folder"),
        (["data", "prepare", "--source", ".", "--out", "x", "--workers", "0"], "--workers must be positive"),
        (["data", "prepare", "--source", ".", "--out", "x"], "no validated.tsv"),
        (["pretrain", "--partition", "dirichelt"], "dirichlet"),
        (["pretrain", "--dirichlet-alpha", "0.1"], "--dirichlet-alpha has a meaning with"),
        (["pretrain", "--partition", "speakers", "--clients", "3"], "--clients has no meaning"),
        (["bench", "data", "--out", "x", "--clips", "10"], "--speakers must be"),
    ],
)
def test_mistakes_are_one_line(capfd, tmp_path, monkeypatch, argv, expected):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert expected in err


def test_an_unfinished_preparation_is_no_corpus(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it.incomplete").mkdir()
    assert cli.main(["data", "describe", "it.incomplete"]) == 2
    assert "is not finished: run the same" in capfd.readouterr().err
