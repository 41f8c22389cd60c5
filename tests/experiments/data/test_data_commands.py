import json

import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.data import corpora, partitions
from experiments.pretrain.clients import LocalWork, SpeechClients, set_aside
from w2v_jax.data.common_voice import Clip, ClipRow, Corpus, load_corpus
from w2v_jax.errors import CorpusError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic")
    argv = [
        "data",
        "synth",
        "--out",
        str(out),
        "--speakers",
        "9",
        "--clips-per-speaker",
        "2",
        "--words",
        "15",
    ]
    assert cli.main(argv) == 0
    return load_corpus(out)


def test_describe_counts_and_draws(corpus, tmp_path, capsys):
    assert cli.main(["data", "describe", str(corpus.folder), "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "describe.json").read_text())
    assert (summary["clips"], summary["speakers"]) == (18, 9)
    counts = {row["from_seconds"]: row["clips"] for row in summary["length_histogram"]}
    whole = [int(clip.seconds) for clip in corpus.clips]
    assert {n: c for n, c in counts.items() if c} == {n: whole.count(n) for n in set(whole)}
    np.testing.assert_allclose(summary["hours"] * 3600, corpus.seconds)
    assert (tmp_path / "describe.png").read_bytes().startswith(b"\x89PNG")
    assert "speakers: 9" in capsys.readouterr().out


def test_synth_refuses_to_overwrite(corpus, capfd):
    assert cli.main(["data", "synth", "--out", str(corpus.folder.parent)]) == 2
    assert "holds a corpus already" in capfd.readouterr().err


def test_corpora_are_found_under_the_environments_folder(corpus, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("W2V_JAX_CORPORA", str(corpus.folder.parent))
    assert corpora.find("xx") == corpus.folder
    with pytest.raises(CorpusError, match="no such folder: yy"):
        corpora.find("yy")


def test_held_out_speakers_are_in_no_client(corpus):
    split = set_aside(corpus, 3, 4, seed=1)
    dealt = partitions.deal(split.training, "balanced", 4, seed=1)
    clients = partitions.clips_of_clients(split.training, dealt)
    inside = {clip.row.client_id for clips in clients.values() for clip in clips}
    assert len(split.heldout_speakers) == 3
    assert not inside & set(split.heldout_speakers)
    assert len(inside) == 6
    assert split.heldout_speakers == set_aside(corpus, 3, 4, seed=1).heldout_speakers


def test_by_default_28_of_128_speakers_are_held_out(corpus):
    # The corpus of docs/results: exactly 100 speakers are left for 100 clients.
    assert len(set_aside(corpus, None, 4, seed=0).heldout_speakers) == 2
    samples = np.ones(16_000, np.int16)
    clips = [
        Clip(row=ClipRow(client_id=f"speaker{i}", path=f"{i}.flac"), samples=samples) for i in range(128)
    ]
    many = Corpus(folder=corpus.folder, split="validated", clips=clips, skipped=[])
    for clients in (10, 100):
        split = set_aside(many, None, clients, seed=0)
        assert (len(split.heldout_speakers), len(split.training)) == (28, 100)


def test_too_many_held_out_speakers_are_refused(corpus):
    with pytest.raises(CorpusError, match="9 speakers: too few for 4 clients and 6 held-out"):
        set_aside(corpus, 6, 4, seed=1)


@pytest.mark.parametrize(
    ("steps", "epochs", "window", "expected"),
    [
        (10, None, "last-epoch", (10, 7)),  # as runs of older versions go on
        (10, None, "round", (10, 0)),
        (2, None, "last-epoch", (2, 0)),
        (None, 1, "last-epoch", (3, 0)),
        (None, 2, "last-epoch", (6, 3)),
    ],
)
def test_local_work_in_steps_or_epochs(corpus, steps, epochs, window, expected):
    # Five clips in batches of two are three steps an epoch.
    work = LocalWork(batch_size=2, crop_samples=16_000, steps=steps, epochs=epochs, loss_window=window)
    plan = work.plan(corpus.clips[:5])
    assert (plan.num_steps, plan.loss_from_step) == expected
    np.testing.assert_allclose(plan.weight, sum(clip.seconds for clip in corpus.clips[:5]))
    source = SpeechClients({"a": corpus.clips[:5]}, work, seed=0)
    batches = list(source.client_batches("a", 0))
    assert len(batches) == expected[0]
    other_round = list(source.client_batches("a", 1))
    assert any((a.waveform != b.waveform).any() for a, b in zip(batches, other_round, strict=True))
