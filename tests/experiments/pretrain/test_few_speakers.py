"""One speaker, or fewer than clients: clips are held out, or a line names the options that would do."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.data import partitions
from experiments.options import arguments
from experiments.pretrain.clients import set_aside
from experiments.pretrain.command import PretrainArguments
from experiments.pretrain.run import Pretraining, notes
from experiments.pretrain.settings import resolve
from experiments.process.files import read_json
from experiments.recognition.recognition_task import RecognitionTask
from experiments.runs.folder import RunFolder
from tests.experiments.data.test_transcribed import rows_of, write_locale
from w2v_jax.data.common_voice import Clip, ClipRow, Corpus
from w2v_jax.errors import CorpusError

TINY = [
    "--rounds", "2", "--local-steps", "1", "--batch", "2", "--seconds", "0.6",
    "--evaluate-every", "1",
]  # fmt: skip


def corpus_of(tmp_path, *clips_of_speakers):
    """A corpus with so many clips of each speaker."""
    samples = np.ones(16_000, np.int16)
    clips = [
        Clip(row=ClipRow(client_id=f"s{speaker}", path=f"{speaker}-{number}.flac"), samples=samples)
        for speaker, count in enumerate(clips_of_speakers)
        for number in range(count)
    ]
    return Corpus(folder=tmp_path, split="validated", clips=clips, skipped=[])


def paths(clips):
    return [clip.row.path for clip in clips]


def test_no_held_out_speakers_means_a_tenth_of_the_clips(tmp_path):
    corpus = corpus_of(tmp_path, 20, 1, 19)
    split = set_aside(corpus, 0, 3, seed=1)
    assert split.heldout_speakers == []
    assert len(split.heldout) == 4
    assert sorted(paths(split.training) + paths(split.heldout)) == sorted(paths(corpus.clips))
    assert {clip.row.client_id for clip in split.training} == {"s0", "s1", "s2"}
    assert "1-0.flac" in paths(split.training)  # a speaker's only clip is never held out
    assert paths(set_aside(corpus, 0, 3, seed=1).heldout) == paths(split.heldout)
    assert paths(set_aside(corpus, 0, 3, seed=2).heldout) != paths(split.heldout)
    assert split.described == "4 of 40 clips held out, by chance, of speakers who are also trained on"
    assert len(set_aside(corpus_of(tmp_path, 6000), 0, 1, seed=0).heldout) == 500


def test_every_speaker_keeps_a_clip_unless_clients_share_speakers(tmp_path):
    corpus = corpus_of(tmp_path, *[1] * 40, 2)
    for seed in range(3):
        assert len(set_aside(corpus, 0, 41, seed).heldout) == 1
        assert len(set_aside(corpus, 0, 30, seed, partition="iid").heldout) == 4


def test_a_partition_of_clips_needs_no_speakers(tmp_path):
    one = set_aside(corpus_of(tmp_path, 20), None, 10, seed=0, partition="iid")
    assert (len(one.training), len(one.heldout), one.heldout_speakers) == (18, 2, [])
    dealt = partitions.deal(one.training, "iid", 10, seed=0)
    assert sorted(index for held in dealt.clients.values() for index in held) == list(range(18))
    assert all(dealt.clients.values())
    few = set_aside(corpus_of(tmp_path, 9, 9, 9), None, 10, seed=0, partition="iid")
    assert (len(few.training), len(few.heldout_speakers)) == (
        18,
        1,
    )  # voices are held out where there are two


def test_partitions_of_clips_hold_out_as_before_where_speakers_suffice(tmp_path):
    corpus = corpus_of(tmp_path, *[2] * 12)
    for clients in (2, 10, 11):
        shared, disjoint = (set_aside(corpus, None, clients, 3, partition=p) for p in ("iid", "balanced"))
        assert shared.heldout_speakers == disjoint.heldout_speakers


@pytest.mark.parametrize("partition", ["balanced", "iid", "speakers"])
@pytest.mark.parametrize("speakers", [1, 2, 3, 7])
@pytest.mark.parametrize("clients", [1, 2, 10])
@pytest.mark.parametrize("heldout", [None, 0, 1, 2, 9])
def test_every_option_that_an_error_names_would_do(tmp_path, partition, speakers, clients, heldout):
    corpus = corpus_of(tmp_path, *[30] * speakers)
    try:
        split = set_aside(corpus, heldout, clients, 0, partition=partition)
    except CorpusError as error:
        message = str(error)
    else:
        assert len(split.heldout) > 0
        assert partition == "iid" or len({clip.row.client_id for clip in split.training}) >= clients
        return
    assert f"{tmp_path} has {speakers} speaker{'s' * (speakers > 1)}: too few for {clients} client" in message
    proposals = re.sub(r"\([^)]*\)", "", message.partition("; give ")[2]).split(" or ")
    assert all(proposals)
    for proposal in proposals:
        given = dict(re.findall(r"(--[a-z-]+) (\w+)", proposal))
        number = int(given.get("--clients", given.get("--clients-per-round", clients)))
        count = int(given["--heldout-speakers"]) if "--heldout-speakers" in given else heldout
        kind = given.get("--partition", partition)
        again = set_aside(corpus, count, number, 0, partition=kind)
        dealt = partitions.deal(again.training, kind, None if kind == "speakers" else number, 0)
        assert len(dealt.clients) >= number
        assert len(again.heldout) > 0


def test_too_few_clips_are_refused(tmp_path):
    for corpus, clients, partition in (((1,), 1, "balanced"), ((5,), 5, "iid"), ((1, 1), 2, "balanced")):
        with pytest.raises(CorpusError, match="too few to hold clips out") as caught:
            set_aside(corpus_of(tmp_path, *corpus), 0, clients, 0, partition=partition)
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def one_speaker(tmp_path_factory):
    rows = [
        (name, path, text, 16_000) for name, path, text, _ in rows_of(1, [f"frase {n}" for n in range(12)])
    ]
    return write_locale(tmp_path_factory.mktemp("corpus") / "it", {"validated": rows})


def begun(one_speaker, out, *options):
    argv = ["--data", str(one_speaker), *TINY, *options]
    folder = RunFolder(out, resolve(arguments.parse(PretrainArguments, argv, "w2v-jax pretrain")), {})
    run = Pretraining(folder.settings, folder)
    folder.close()
    return run


def test_one_speaker_is_refused_with_the_options_that_would_do(one_speaker, tmp_path, capfd):
    argv = ["pretrain", "--data", str(one_speaker), "--out", str(tmp_path / "run"), *TINY]
    assert cli.main(argv) == 2
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert "has 1 speaker: too few for 10 clients and 1 held-out speaker; give --partition iid " in line
    assert cli.main([*argv, "--heldout-speakers", "-1"]) == 2
    assert "--heldout-speakers must not be negative" in capfd.readouterr().err


def test_one_speaker_begins_with_what_the_line_names(one_speaker, tmp_path):
    run = begun(one_speaker, tmp_path / "run", "--partition", "iid", "--heldout-speakers", "0")
    assert "1 of 12 clips held out, by chance, of speakers who are also trained on" in notes(run, None)[0]
    clips = read_json(tmp_path / "run" / "clips.json")
    assert (clips["heldout_speakers"], clips["heldout_clips"]) == ([], 1)
    assert sum(client["clips"] for client in clips["clients"].values()) == 11
    assert len(clips["clients"]) == 10
    alone = begun(one_speaker, tmp_path / "central", "--preset", "centralised", "--heldout-speakers", "0")
    assert len(alone.data.split.training) == 11


@pytest.mark.slow
def test_one_speaker_is_pre_trained_on(one_speaker, tmp_path):
    out = tmp_path / "run"
    argv = [
        "pretrain",
        "--data",
        str(one_speaker),
        "--out",
        str(out),
        *TINY,
        "--partition",
        "iid",
        "--clients",
        "2",
    ]
    assert cli.main(argv) == 0
    report = (out / "report.md").read_text()
    assert "on 1 held-out clips" in report
    assert "Their speakers are also trained on: the table says nothing about new voices." in report


def test_fine_tuning_says_that_speakers_are_shared():
    def held(*speakers):
        clips = [
            Clip(row=ClipRow(client_id=name, path="x"), samples=np.ones(1, np.int16)) for name in speakers
        ]
        return SimpleNamespace(clips=clips)

    def described(**splits):
        task = SimpleNamespace(
            _settings={"language": "it"},
            evaluation={},
            splits=splits,
            tokenizer=SimpleNamespace(num_tokens=9),
        )
        return RecognitionTask.described(task)  # pyright: ignore[reportArgumentType]

    shared = described(train=held("a", "b"), test=held("a", "c"))
    assert shared == "9 tokens, 1 of test's 2 speakers are in train too"
    assert described(train=held("a", "b"), test=held("c")) == "9 tokens"
