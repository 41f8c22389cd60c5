"""Minutes, run by make test-slow: a recognizer learns to read new speakers, and not without listening."""

import csv

import pytest

from experiments.cli import main as cli
from experiments.process.files import read_json

pytestmark = pytest.mark.slow

OPTIONS = [
    "--head-optimizer", "adam", "--schedule", "tri-stage", "--batch-seconds", "16",
    "--evaluate-every", "200", "--encoder-learning-rate", "1e-3", "--head-learning-rate", "1e-3",
]  # fmt: skip
UPDATES = 1400


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    size = ["--speakers", "60", "--clips-per-speaker", "16", "--words", "300"]
    assert cli.main(["data", "synth", "--out", str(folder), *size]) == 0
    return folder / "xx"


def rows_of(corpus, split):
    with (corpus / f"{split}.tsv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def finetune(corpus, out, updates, *options):
    argv = ["finetune", "--data", str(corpus), "--out", str(out), *OPTIONS, "--updates", str(updates)]
    assert cli.main([*argv, *options]) == 0
    return read_json(out / "results.json")["test"]


def test_new_sentences_of_new_speakers_are_read(corpus, tmp_path):
    train, test = rows_of(corpus, "train"), rows_of(corpus, "test")
    assert not {row["client_id"] for row in train} & {row["client_id"] for row in test}
    assert len({row["client_id"] for row in test}) == 6
    assert not {row["sentence"] for row in train} & {row["sentence"] for row in test}
    found = finetune(corpus, tmp_path / "run", UPDATES)
    assert found["utterances"] == len(test) == 96
    assert found["words"] == sum(len(row["sentence"].split()) for row in test)
    assert found["infeasible"] == 0
    # 7.9 % after 1200 updates, seed 0; an untrained recognizer has 100 %.
    assert found["wer"] < 0.10
    assert found["cer"] < found["wer"]
    with (tmp_path / "run" / "transcripts.tsv").open(encoding="utf-8", newline="") as lines:
        said = {row["path"]: row["reference"] for row in csv.DictReader(lines, delimiter="\t")}
    assert said == {row["path"]: row["sentence"] for row in test}


def test_transcripts_of_other_clips_teach_nothing_of_these(corpus, tmp_path):
    found = finetune(corpus, tmp_path / "run", UPDATES, "--shuffle-transcripts")
    assert found["wer"] > 0.90
