"""Spoilt audio: as strong as said, the same at every reading, of the chosen clients' training clips alone."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.data.corruption import SpoiltClips, add_noise, amplify, choose, spoil, spoiling
from experiments.pretrain.command import ABSENT_SETTINGS, PretrainArguments, default_folder, resolve
from experiments.process.files import read_json, write_json
from experiments.runs.folder import RunFolder
from w2v_jax.data.common_voice import Clip, Columnar, Utterance, column, lengths, take
from w2v_jax.data.prepared.corpus import load_prepared
from w2v_jax.data.prepared.preparation import prepare
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.data.tables import ClipRow
from w2v_jax.errors import UserError

SECOND = np.round(3000 * np.sin(np.arange(16_000) * 0.3)).astype(np.int16)


def clip(number: int, samples=SECOND) -> Clip:
    return Clip(row=ClipRow(client_id=f"speaker{number}", path=f"{number}.wav"), samples=samples)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, -6.0])
def test_noise_has_the_strength_that_was_asked_for(snr_db):
    noise = add_noise(SECOND, np.random.default_rng(0), snr_db).astype(float) - SECOND
    power = np.mean(np.square(SECOND.astype(float))) / np.mean(np.square(noise))
    assert 10 * np.log10(power) == pytest.approx(snr_db, abs=0.2)
    # White: neighbours know nothing of each other.
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.05


def test_loud_clips_saturate_and_quiet_ones_lose_their_bits():
    loud = amplify(SECOND, 30.0)
    assert loud.dtype == np.int16
    assert (np.abs(loud) == 32767).mean() > 0.7
    assert (np.sign(loud) == np.sign(SECOND)).all()
    quiet = amplify(SECOND, -60.0)
    assert quiet.dtype == np.int16
    np.testing.assert_array_equal(quiet, np.round(SECOND / 1000))
    assert set(quiet.tolist()) == set(range(-3, 4))


def test_the_full_scale_of_int16_does_not_wrap_round():
    loudest = np.array([32767, -32768, -32767], np.int16)
    np.testing.assert_array_equal(amplify(loudest, 30.0), [32767, -32767, -32767])
    assert np.abs(add_noise(loudest.repeat(1000), np.random.default_rng(0)).astype(int)).max() == 32767


def test_a_clip_sounds_the_same_at_every_reading_and_unlike_others():
    clips = SpoiltClips([clip(1), clip(2)], spoiling("noise", seed=3))
    again = SpoiltClips([clip(2)], spoiling("noise", seed=3))
    np.testing.assert_array_equal(clips[1].samples, again[0].samples)
    assert (clips[0].samples != clips[1].samples).mean() > 0.9
    assert (SpoiltClips([clip(2)], spoiling("noise", seed=4))[0].samples != again[0].samples).mean() > 0.9


@pytest.fixture(scope="module")
def locale(tmp_path_factory) -> Path:
    return write_corpus(
        tmp_path_factory.mktemp("corpus"), SyntheticConfig(speakers=6, clips_per_speaker=2, words=10, seed=1)
    )


@pytest.fixture(scope="module", params=["in memory", "prepared"])
def clips(request, locale, tmp_path_factory):
    if request.param == "in memory":
        return [clip(number) for number in range(4)]
    out = tmp_path_factory.mktemp("prepared") / "xx"
    prepare(locale, out)
    return load_prepared(out).clips


def test_columns_lengths_and_parts_are_those_of_the_clips(clips):
    spoilt = SpoiltClips(clips, spoiling("clip", 0))
    assert isinstance(spoilt, Columnar)
    assert isinstance(spoilt[0], Utterance)
    assert len(spoilt) == len(clips)
    for name in ("client_id", "path"):
        assert list(column(spoilt, name)) == list(column(clips, name))
    np.testing.assert_array_equal(lengths(spoilt), lengths(clips))
    for part in (take(spoilt, [2, 0]), [spoilt[2], spoilt[0]], spoilt[2::-2]):
        for ours, index in zip(part, (2, 0), strict=True):
            assert (ours.row, ours.num_samples) == (clips[index].row, clips[index].num_samples)
            assert ours.seconds == clips[index].seconds
            np.testing.assert_array_equal(ours.samples, amplify(clips[index].samples, 30.0))


def test_the_seed_chooses_and_more_clients_hold_the_same_ones():
    names = [f"client_{number:04d}" for number in range(10)]
    two, five = choose(names, 2, 7), choose(names, 5, 7)
    assert len(set(two)) == 2
    assert set(two) < set(five) < set(names)
    assert choose(names[::-1], 2, 7) == two
    assert len({tuple(choose(names, 2, seed)) for seed in range(8)}) > 4
    with pytest.raises(UserError, match="more than the 10 clients"):
        choose(names, 11, 0)


def test_other_clients_keep_their_clips():
    clients = {"a": [clip(1)], "b": [clip(2)]}
    made = spoil(clients, ["b"], "quiet", 0)
    assert made["a"] is clients["a"]
    assert np.abs(made["b"][0].samples).max() == 3


def test_a_run_spoils_training_clips_of_its_clients_and_no_held_out_ones(locale, tmp_path):
    from experiments.pretrain.run import Pretraining

    made, batches = {}, {}
    for kind in ("none", "quiet"):
        options = PretrainArguments(
            data=locale, clients=4, batch_size=2, crop_seconds=0.7, heldout_speakers=2, lanes=1, seed=5,
            **({} if kind == "none" else {"corruption": kind, "corrupted_clients": 1}),
        )  # fmt: skip
        settings = resolve(options)
        folder = RunFolder(tmp_path / kind, settings, {})
        made[kind] = Pretraining(settings, folder)
        folder.close()
        source = made[kind].source
        batches[kind] = {name: next(source.client_batches(name, 0)) for name in source.client_ids()}
    assert "corruption" not in read_json(tmp_path / "none" / "clips.json")
    said = read_json(tmp_path / "quiet" / "clips.json")["corruption"]
    assert said == {"kind": "quiet", "clients": choose(list(batches["none"]), 1, 5)}
    for name, clean in batches["none"].items():
        spoilt = batches["quiet"][name]
        np.testing.assert_array_equal(spoilt.utterance_id, clean.utterance_id)
        same = np.array_equal(spoilt.waveform, clean.waveform)
        assert same == (name not in said["clients"])
        if not same:
            np.testing.assert_allclose(spoilt.waveform, clean.waveform / 1000, atol=0.6 / 32767)
    # An older run continues with its counts, which were 0 for unknown; a new run says None.
    unknown = dataclasses.replace(made["none"].data, speakers_also_in={"dev": None, "test": 3})
    assert unknown.record("none")["speakers_also_in"] == {"dev": None, "test": 3}
    former = {"speakers_also_in": {"dev": 0, "test": 2}}
    assert unknown.record("none", former)["speakers_also_in"] == {"dev": 0, "test": 2}
    assert unknown.record("none", former | {"changed": []})["speakers_also_in"] == {"dev": None, "test": 3}
    held = {kind: [c.samples for c in run.data.split.heldout] for kind, run in made.items()}
    for ours, theirs in zip(held["quiet"], held["none"], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_of_before_goes_on_where_the_new_settings_are_at_their_defaults(tmp_path):
    settings = resolve(PretrainArguments(local_epochs=1))
    assert {name: settings[name] for name in ABSENT_SETTINGS} == ABSENT_SETTINGS
    old = {name: value for name, value in settings.items() if name not in ABSENT_SETTINGS}
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", {"settings": old, "provenance": {}})
    RunFolder(tmp_path / "run", settings, {}, absent=ABSENT_SETTINGS).close()
    spoilt = resolve(PretrainArguments(corruption="noise"))
    with pytest.raises(UserError, match="corruption: none there, noise here"):
        RunFolder(tmp_path / "run", spoilt, {}, absent=ABSENT_SETTINGS)


def test_folders_are_named_after_the_corruption():
    settings = resolve(PretrainArguments(corruption="clip", corrupted_clients=3))
    assert settings["corrupted_clients"] == 3
    assert default_folder(settings) == Path("runs/ten-clients-tiny-fedavg-clip")
    assert default_folder(resolve(PretrainArguments())) == Path("runs/ten-clients-tiny-fedavg")
