"""Federated fine-tuning and personalisation: clients, the local training, runs that continue, and reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.data.transcribed import Transcribed, selected
from experiments.options.errors import UsageError
from experiments.process.files import read_json
from experiments.recognition.clients import personalisation
from experiments.recognition.clients import report as client_report
from experiments.recognition.clients.labelled_clients import LabelledClients, deal, withhold
from experiments.recognition.finetune import FinetuneArguments, resolve
from experiments.recognition.recipes import KEYWORDS
from experiments.recognition.schedule import learning_rates, local_training
from experiments.report.statistics import interval
from experiments.runs.folder import read_metrics
from fed import sampling, server, simulation
from fed.algorithms.averaging import averaging
from fed.cohort import Layout
from fed.protocols import ClientPlan
from tests.experiments.cli.test_commands import fails
from tests.experiments.recognition.test_finetune import arrays, assert_same_arrays, cut_off, untimed
from tests.experiments.recognition.test_keyword_runs import RUN, write_corpus
from w2v_jax.batch import LabelledBatch, Total
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.data.common_voice import Clip, column
from w2v_jax.data.tables import ClipRow
from w2v_jax.errors import CorpusError
from w2v_jax.objective.objective import Objective
from w2v_jax.recognition.training import NewBob, initial_state, make_optimizer, make_update

LOG_MEL = [*RUN, "--features", "log-mel", "--head-learning-rate", "0.05", "--no-augment"]
ROUNDS = [
    *LOG_MEL, "--clients", "3", "--clients-per-round", "2", "--rounds", "5", "--local-steps", "3",
    "--evaluate-every", "2", "--algorithm", "scaffold", "--personalise", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    speakers = {"train": ("a", "b", "c", "g"), "dev": ("d",), "test": ("e", "f")}
    return write_corpus(tmp_path_factory.mktemp("federated") / "xx", speakers)


def finetune(corpus, out, *options):
    assert cli.main(["finetune", "--data", str(corpus), "--out", str(out), *options]) == 0
    return out


@pytest.fixture(scope="module")
def federated(corpus, tmp_path_factory):
    return finetune(corpus, tmp_path_factory.mktemp("federated") / "run", *ROUNDS)


def test_rounds_learn_and_say_who_took_part(federated):
    lines, data = read_metrics(federated / "metrics.jsonl"), read_json(federated / "data.json")
    # Updates are local steps; validations come after every second round and after the last.
    assert [(line["round"], line["update"]) for line in lines] == [(2, 6), (4, 12), (5, 15)]
    # Eight clips are withheld: two of the nine of each of four speakers. The other 28 fit one batch a client.
    assert data["train"]["clips"] == 28
    assert data["withheld"]["clips"] == 8
    assert lines[0]["epoch"] == 2 * 2 * 3 / 3
    assert lines[-1]["dev_accuracy"] > 0.9
    clips = {
        row["client"]: row["training_clips"]
        for row in read_json(federated / "results.json")["personalised"]["clients"]
    }
    invited = sampling.uniform(sorted(clips), 2, 3)
    heard = sum(3 * clips[name] * 0.4 for index in (0, 1) for name in invited(index))
    assert lines[0]["audio_seconds"] == pytest.approx(heard, rel=1e-5)
    held = data["federation"]
    assert (held["clients"], held["clients_per_round"], held["rounds"]) == (3, 2, 5)
    assert data["updates"] == 15
    dealt = read_json(federated / "partition.json")["speakers"]
    assert sorted(name for names in dealt.values() for name in names) == ["a", "b", "c", "g"]


def test_the_report_tells_federation_and_personalisation(federated):
    report, result = (federated / "report.md").read_text(), read_json(federated / "results.json")
    assert "held by 3 clients. In each of 5 rounds 2 of them made 3 local steps, which" in report
    assert "3, 2 a round (balanced)" in report
    assert "5 of 3 local steps" in report
    assert "scaffold" in report
    assert "averaged with the weights of their updates" in report
    assert "## Personalised clients, the smallest gain first" in report
    found = result["personalised"]
    assert found["withheld_clips"] == sum(row["withheld_clips"] for row in found["clients"]) == 8
    assert sum(row["training_clips"] for row in found["clients"]) == 28
    assert found["clients_without_withheld_clips"] == 0
    gains = [row["after"] - row["before"] for row in found["clients"]]
    assert [row["gain"] for row in found["clients"]] == gains
    assert gains == sorted(gains)
    assert found["gain"] == pytest.approx(np.mean(gains))
    assert found["gain_interval"] == pytest.approx(interval(gains))


def test_a_cut_off_run_continues_with_its_clients_states_to_the_same_bits(
    corpus, federated, tmp_path, monkeypatch
):
    out, disk = tmp_path / "cut", [*ROUNDS, "--client-states", "disk"]
    with monkeypatch.context() as patch:
        cut_off(patch, "checkpoints", 12)
        assert cli.main(["finetune", "--data", str(corpus), "--out", str(out), *disk]) == 130
    assert [line["update"] for line in read_metrics(out / "metrics.jsonl")] == [6, 12]
    finetune(corpus, out, *disk)
    assert untimed(read_metrics(out / "metrics.jsonl")) == untimed(read_metrics(federated / "metrics.jsonl"))
    assert untimed(read_json(out / "results.json")) == untimed(read_json(federated / "results.json"))
    for name in ("checkpoints", "best"):
        assert_same_arrays(arrays(out / name), arrays(federated / name))


def test_copies_of_a_central_model_learn_and_are_scored_by_speaker(corpus, tmp_path, monkeypatch):
    """The model itself learns next to nothing, and its copies learn at the rate of other tests."""
    monkeypatch.setattr(personalisation, "RATE_SHARE", 0.05 / 1e-7)
    options = ["--updates", "1", "--head-learning-rate", "1e-7", "--personalise", "8"]
    run = finetune(corpus, tmp_path / "run", *LOG_MEL, *options)
    found = read_json(run / "results.json")["personalised"]
    assert sorted(row["client"] for row in found["clients"]) == [f"client_{n:04d}" for n in range(4)]
    assert [row["speakers"] for row in found["clients"]] == [1] * 4
    assert found["gain"] > 0.4
    assert {row["withheld_clips"] for row in found["clients"]} == {2}
    assert "federation" not in read_json(run / "data.json")
    assert not (run / "partition.json").exists()


# The local training.


def toy() -> Objective:
    """Regression with one weight in each group, and a state that counts the batches."""

    def loss(parameters, batch):
        error = batch.waveform * parameters["encoder"]["w"] + parameters["head"]["w"] - 1.0
        return jnp.square(error).mean()

    def init(key):
        del key
        return {"encoder": {"w": jnp.float32(2.0)}, "head": {"w": jnp.float32(0.5)}}, {"n": jnp.float32(0.0)}

    def value_and_grad(parameters, state, batch, key, step):
        del key, step
        value, gradients = jax.value_and_grad(loss)(parameters, batch)
        return gradients, {"n": state["n"] + 1.0}, {"loss": Total(value, jnp.float32(1.0))}

    return Objective(init, loss, value_and_grad, loss, dict)


class OneClient:
    def __init__(self, steps):
        self.steps = steps

    def client_ids(self):
        return ["only"]

    def plan(self, client_id, round_index):
        return ClientPlan(self.steps, 0, 1.0)

    def client_batches(self, client_id, round_index):
        ones = np.ones(1, np.int32)
        for row in np.linspace(-1, 2, self.steps * 4, dtype=np.float32).reshape(self.steps, 1, 4):
            yield LabelledBatch._make((row, 4 * ones, ones.astype(np.uint32), ones[None], ones))


def federated_toy(settings, steps):
    training = local_training(settings, KEYWORDS["tiny"], toy(), steps)
    run = simulation.Simulation(
        training, averaging(), OneClient(steps), lambda index: ["only"], Layout(1, 1), 0, steps
    )
    begun = server.init(toy(), averaging(), jax.random.key(0))
    return next(simulation.run(run, begun, 1)).server


@pytest.mark.parametrize("head_optimizer", ["adam", "adadelta"])
def test_a_round_of_one_client_is_central_training(head_optimizer):
    settings, steps = resolve(FinetuneArguments(task="keywords", clients=1)), 12
    settings |= {"head_optimizer": head_optimizer, "clip_norm": 0.5}
    found = federated_toy(settings, steps)
    optimizer = make_optimizer(head_optimizer, 0.5)
    state, update = initial_state(toy(), optimizer, jax.random.key(0)), jax.jit(make_update(toy(), optimizer))
    for step, batch in enumerate(OneClient(steps).client_batches("only", 0)):
        rates = learning_rates(settings, KEYWORDS["tiny"], step, steps, NewBob())
        state, _ = update(state, batch, jax.random.key(0), rates)
    for group in ("encoder", "head"):
        np.testing.assert_allclose(found.parameters[group]["w"], state.parameters[group]["w"], rtol=1e-6)
    assert abs(float(state.parameters["encoder"]["w"]) - 2.0) > 1e-3
    assert found.objective_state["n"] == steps


def test_the_encoder_waits_for_the_head_and_a_frozen_one_stays():
    settings = resolve(FinetuneArguments(task="keywords", clients=1, head_only_updates=4))
    waited, trained = federated_toy(settings, 4), federated_toy(settings, 5)
    assert waited.parameters["encoder"]["w"] == np.float32(2.0)
    assert waited.parameters["head"]["w"] != np.float32(0.5)
    assert trained.parameters["encoder"]["w"] != np.float32(2.0)
    frozen = federated_toy(settings | {"head_only_updates": 0, "freeze": "encoder"}, 4)
    assert frozen.parameters["encoder"]["w"] == np.float32(2.0)


# Clients and withheld clips.


def clips_of(counts, order=1):
    """Clips by speaker; those of a speaker differ in length, and `order` -1 turns the table round."""
    rows = [
        Clip(
            row=ClipRow(client_id=name, path=f"{name}{number}", sentence="x"),
            samples=np.full(800 + 100 * number, number + 1, np.int16),
        )
        for name, count in counts.items()
        for number in range(count)
    ][::order]
    return Transcribed(clips=rows, texts=[clip.row.path for clip in rows], dropped={}, source="made")


def clients_of(train, batch_samples=3000):
    settings = {"clients": 2, "partition": "balanced", "seed": 5}
    batches = LabelledBatches(
        train.clips, [[1]] * len(train.clips), batch_samples=batch_samples, num_buckets=1
    )
    return LabelledClients(train, batches, deal(train, settings), local_steps=2, seed=5)


def test_a_client_goes_through_its_clips_in_batches_of_one_shape():
    held, turned = (clients_of(clips_of({"a": 5, "b": 2, "c": 3}, order)) for order in (1, -1))
    assert held.client_ids() == turned.client_ids() == ["client_0000", "client_0001"]
    shapes = set()
    for client in held.client_ids():
        steps = held.epoch_steps(client)
        for epoch in range(2):
            batches = [held.batch(client, epoch * steps + step) for step in range(steps)]
            heard = np.concatenate([batch.utterance_id[batch.num_samples > 0] for batch in batches])
            assert len(heard) == len(set(heard.tolist())) == held.clips(client)
            shapes |= {batch.waveform.shape for batch in batches}
        for round_index in range(3):
            for step, batch in enumerate(held.client_batches(client, round_index)):
                expected = turned.batch(client, 2 * round_index + step)
                np.testing.assert_array_equal(batch.utterance_id, expected.utterance_id)
    assert len(shapes) == 1
    assert held.plan("client_0000", 3).weight == pytest.approx(sum(800 + 100 * n for n in range(5)) / 16_000)


def test_a_fifth_of_each_speakers_clips_is_withheld():
    train = clips_of({"a": 10, "b": 2, "c": 1})
    kept, withheld = withhold(train, 1)
    assert len(kept.clips) + len(withheld.clips) == 13
    names = column(withheld.clips, "client_id")
    assert {name: list(names).count(name) for name in "abc"} == {"a": 2, "b": 1, "c": 0}
    assert not set(column(kept.clips, "path")) & set(column(withheld.clips, "path"))
    assert withheld.texts == column(withheld.clips, "path")
    again = withhold(selected(train, range(12, -1, -1)), 1)[1]
    assert set(again.texts) == set(withheld.texts)
    assert set(withhold(train, 2)[1].texts) != set(withheld.texts)
    with pytest.raises(CorpusError, match="no speaker has two"):
        withhold(clips_of({"a": 1, "b": 1}), 1)


def test_a_loss_of_personalisation_is_told():
    rows = [{"gain": gain} for gain in (-0.1, 0.0, 0.04)]
    said = client_report.told(
        {"score": "WER", "updates": 3, "gain": -0.02, "gain_interval": None, "clients": rows}
    )
    assert "the WER of 3 clients on their withheld clips is 2.0 points worse on average" in said
    assert "1 gain, 1 lose, 1 stay the same" in said


# Bad input.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rounds": 3}, "--rounds has a meaning with --clients alone: add --clients N"),
        ({"algorithm": "scaffold"}, "--algorithm has a meaning with --clients alone"),
        ({"clients": 2, "minutes": 1.0}, "--minutes plans the updates of central training"),
        ({"clients": 2, "updates": 9}, "--updates counts those of central training"),
        ({"clients": 2, "schedule": "newbob"}, "--schedule newbob follows validations"),
        ({"clients": 2, "partition": "speakers"}, "--clients has no meaning with --partition speakers"),
        ({"clients": 2, "clients_per_round": 3}, "--clients-per-round must be at most --clients 2, got 3"),
        ({"clients": 2, "algorithm": "mime-lite"}, "mime-lite needs clients with plain SGD"),
        ({"clients": 0}, "--clients must be positive, got 0"),
        ({"personalise": 2, "shuffle_transcripts": True}, "leave --shuffle-transcripts out"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(options, expected):
    with pytest.raises(UsageError, match=expected):
        resolve(FinetuneArguments(**options))


def test_clients_change_the_defaults_of_recognition_and_nothing_else():
    central, federated = resolve(FinetuneArguments()), resolve(FinetuneArguments(clients=2))
    changed = {name: federated[name] for name in federated if federated[name] != central[name]}
    assert changed == {"clients": 2, "local_steps": 5, "head_optimizer": "adam", "schedule": "tri-stage"}
    by_speaker = resolve(FinetuneArguments(partition="speakers"))
    assert (by_speaker["clients"], by_speaker["local_steps"]) == (None, 5)


def test_more_clients_than_speakers_are_one_line(corpus, capfd, tmp_path):
    for options, expected in (
        (["--clients", "9"], "9 clients need at least as many speakers, and there are 4"),
        (
            ["--partition", "speakers", "--clients-per-round", "9"],
            "--clients-per-round must be at most 4, the clients that there are, got 9",
        ),
    ):
        capfd.readouterr()
        out = tmp_path / "run"
        line = fails(capfd, "finetune", "--data", str(corpus), "--out", str(out), *LOG_MEL, *options)
        assert expected in line
        assert not (out / "config.json").exists()


@pytest.mark.slow
def test_a_recognizers_statistics_are_averaged_and_it_is_personalised(corpus, tmp_path):
    options = ["--features", "log-mel", "--clients", "2", "--rounds", "2", "--local-steps", "2"]
    options += ["--head-blocks", "1", "--head-width", "16", "--batch-seconds", "8", "--personalise", "1"]
    run = finetune(corpus, tmp_path / "run", *options)
    held = arrays(run / "best")
    assert np.abs(held["['statistics']['input_norm']['mean']"]).max() > 0
    found = read_json(run / "results.json")["personalised"]
    assert found["score"] == "WER"
    assert [row["gain"] for row in found["clients"]] == [
        row["before"] - row["after"] for row in found["clients"]
    ]
    assert "statistics of normalisation" in (run / "report.md").read_text()
