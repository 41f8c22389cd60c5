import numpy as np
import pytest
import soundfile

from w2v_jax.data import audio
from w2v_jax.data.batches.crops import evaluation_batches, training_batches
from w2v_jax.data.common_voice import load_corpus, locate, read_table
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.errors import ClipError, CorpusError


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, SyntheticConfig(speakers=5, clips_per_speaker=3, words=20, seed=1))
    return folder


def tone(seconds, rate, hz=440.0):
    return (0.4 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "rate", "options"),
    [
        ("wav", 16_000, {}),
        ("wav", 8_000, {}),
        ("flac", 44_100, {}),
        ("ogg", 48_000, {"format": "OGG", "subtype": "VORBIS"}),
        ("mp3", 48_000, {"format": "MP3"}),
    ],
)
def test_any_format_and_rate_becomes_16_khz_mono(tmp_path, suffix, rate, options):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, np.stack([tone(1.0, rate)] * 2, axis=1), rate, **options)
    samples = audio.decode(path)
    assert samples.dtype == np.int16
    assert abs(len(samples) - 16_000) < 1_700  # mp3 pads whole frames
    spectrum = np.abs(np.fft.rfft(audio.to_float(samples)))
    assert abs(np.argmax(spectrum) * 16_000 / len(samples) - 440) < 3


def test_broken_clips_are_named_by_reason(tmp_path):
    good = tmp_path / "good.flac"
    soundfile.write(good, np.random.default_rng(0).standard_normal(32_000) * 0.1, 16_000)
    whole = good.read_bytes()
    cases = {
        "missing": None,
        "empty": b"",
        "undecodable": b"this is not audio" * 20,
        "truncated": whole[: len(whole) // 2],
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.flac"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ClipError) as caught:
            audio.decode(path)
        assert caught.value.reason == name
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "short.wav", tone(0.02, 16_000), 16_000)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    for name, reason in (("silent", "silent"), ("short", "too short"), ("none", "empty")):
        with pytest.raises(ClipError) as caught:
            audio.decode(tmp_path / f"{name}.wav", min_samples=400)
        assert caught.value.reason == reason
    with pytest.raises(ClipError, match="too long: 2 s, at most 1 s"):
        audio.decode(good, max_seconds=1.0)
    assert len(audio.decode(good, max_seconds=2.0)) == 32_000


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("wav", {}),
        ("flac", {}),
        ("ogg", {"format": "OGG", "subtype": "VORBIS"}),
        ("mp3", {"format": "MP3"}),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_cut_short_is_never_taken_for_whole(tmp_path, suffix, options, share):
    path = tmp_path / f"clip.{suffix}"
    noise = 0.1 * np.random.default_rng(0).standard_normal(64_000)
    soundfile.write(path, noise, 16_000, **options)
    assert abs(len(audio.decode(path)) - 64_000) < 2_500
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ClipError) as caught:
        audio.decode(path)
    assert caught.value.reason in ("truncated", "undecodable")


def test_synthetic_corpus_is_deterministic_and_in_the_layout(synthetic, tmp_path):
    again = write_corpus(tmp_path, SyntheticConfig(speakers=5, clips_per_speaker=3, words=20, seed=1))
    first = locate(synthetic)
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(files) == 15 + 5
    assert all((first / f).read_bytes() == (again / f).read_bytes() for f in files)
    other = write_corpus(tmp_path / "b", SyntheticConfig(speakers=5, clips_per_speaker=3, words=20, seed=2))
    assert (other / "validated.tsv").read_bytes() != (first / "validated.tsv").read_bytes()
    splits = ("train", "dev", "test", "validated")
    speakers = {s: {row.client_id for row in read_table(first, s).rows} for s in splits}
    assert not speakers["train"] & (speakers["dev"] | speakers["test"])
    assert not speakers["dev"] & speakers["test"]
    assert speakers["validated"] == speakers["train"] | speakers["dev"] | speakers["test"]
    assert all(row.sentence for row in read_table(first).rows)


def test_letters_sound_different_and_alike_across_clips():
    from w2v_jax.data.synthetic import letter_formants_hz

    letters = "aeiou" + "bdfgklmnprstvz"
    assert len({letter_formants_hz(letter) for letter in letters}) == len(letters)


def test_varied_conditions_change_the_sound_and_nothing_else(synthetic, tmp_path):
    config = SyntheticConfig(speakers=5, clips_per_speaker=3, words=20, seed=1, conditions="varied")
    varied, clean = write_corpus(tmp_path, config), locate(synthetic)
    for table in sorted(clean.glob("*.tsv")):
        assert (varied / table.name).read_bytes() == table.read_bytes()
    # Above 2 kHz: every clip has noise and a microphone of its own.
    shares = {}
    for folder in (clean, varied):
        spectra = [np.abs(np.fft.rfft(soundfile.read(path)[0])) ** 2 for path in folder.glob("clips/*")]
        shares[folder] = [spectrum[len(spectrum) // 4 :].sum() / spectrum.sum() for spectrum in spectra]
    assert np.mean(shares[varied]) > 1.5 * np.mean(shares[clean])
    assert np.std(shares[varied]) > 2 * np.std(shares[clean])


def test_folder_or_its_parent(synthetic):
    assert locate(synthetic) == locate(synthetic / "xx") == synthetic / "xx"
    (synthetic / "unrelated").mkdir(exist_ok=True)
    assert locate(synthetic) == synthetic / "xx"


def test_columns_by_header_in_any_order(tmp_path):
    (tmp_path / "validated.tsv").write_text(
        '﻿sentence\taccents\tpath\tclient_id\nHe said "no\tx\ta.mp3\ts1\nplain\ty\tb.mp3\ts2\n',
        encoding="utf-8",
    )
    rows = read_table(tmp_path).rows
    assert [(r.client_id, r.path, r.sentence) for r in rows] == [
        ("s1", "a.mp3", 'He said "no'),
        ("s2", "b.mp3", "plain"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path\tsentence\na\tb\n", "missing column client_id"),
        ("", "missing column client_id, path"),
        ("client_id\tpath\n", "no clips listed"),
        (b"client_id\tpath\xff\n", "not a UTF-8"),
        (b"client_id\tpath\n\xff\xfe\tb\n", "1 rows cannot be read"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "validated.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CorpusError, match=message) as caught:
        read_table(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_folder_no_table_several_locales(tmp_path):
    with pytest.raises(CorpusError, match="no such folder"):
        locate(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match=r"no validated\.tsv"):
        locate(tmp_path)
    for name in ("it", "en"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "validated.tsv").touch()
    with pytest.raises(CorpusError, match="several locales"):
        locate(tmp_path)


def test_unusable_clips_are_skipped_counted_and_listed(synthetic, tmp_path):
    import shutil

    folder = tmp_path / "xx"
    shutil.copytree(locate(synthetic), folder)
    names = [row.path for row in read_table(folder).rows]
    (folder / "clips" / names[0]).unlink()
    (folder / "clips" / names[1]).write_bytes(b"")
    corpus = load_corpus(folder)
    assert len(corpus.clips) == 13
    assert corpus.skipped_by_reason() == {"missing": 1, "empty": 1}
    assert [skip.path for skip in corpus.skipped] == names[:2]
    for name in names:
        (folder / "clips" / name).write_bytes(b"")
    with pytest.raises(CorpusError, match="none of the 15 clips"):
        load_corpus(folder)


def batches(clips, **changes):
    options = {"batch_size": 4, "crop_samples": 16_000, "num_steps": 6, "identity": (0, 1)} | changes
    return list(training_batches(clips, **options))


def test_every_epoch_sees_every_clip_once(synthetic):
    clips = load_corpus(synthetic).clips
    ids = np.concatenate([batch.utterance_id for batch in batches(clips, num_steps=15)])
    assert len(ids) == 60
    for epoch in range(4):
        assert len(set(ids[15 * epoch : 15 * (epoch + 1)])) == 15


def test_batches_depend_on_identity_alone(synthetic):
    clips = load_corpus(synthetic).clips
    first, turned, longer = batches(clips), batches(clips[::-1]), batches(clips, num_steps=9)
    late = batches(clips, first_step=4)
    for ours, theirs in (
        *zip(first, turned, strict=True),
        *zip(first, longer[:6], strict=True),
        *zip(first[4:], late, strict=True),
    ):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert any(
        (a.waveform != b.waveform).any() for a, b in zip(first, batches(clips, identity=(0, 2)), strict=True)
    )


def test_every_epoch_crops_anew(synthetic):
    clips = load_corpus(synthetic).clips[:1]
    first, second = batches(clips, batch_size=1, num_steps=2)
    assert (first.waveform != second.waveform).any()


def test_repeats_in_a_batch_get_draws_of_their_own(synthetic):
    clips = load_corpus(synthetic).clips[:2]
    for batch in batches(clips, num_steps=3):
        assert len(set(batch.utterance_id.tolist())) == 4


def test_short_clips_are_padded_and_measured(synthetic):
    clips = load_corpus(synthetic).clips
    (batch,) = batches(clips, num_steps=1, crop_samples=200_000)
    lengths = {len(clip.samples) for clip in clips}
    assert set(batch.num_samples.tolist()) <= lengths
    for row, length in enumerate(batch.num_samples):
        assert not batch.waveform[row, length:].any()


def test_evaluation_takes_every_clip_once_and_pads_the_last_batch(synthetic):
    clips = load_corpus(synthetic).clips
    found = list(evaluation_batches(clips, batch_size=4, crop_samples=16_000))
    assert [int((b.num_samples > 0).sum()) for b in found] == [4, 4, 4, 3]
    ids = np.concatenate([b.utterance_id[b.num_samples > 0] for b in found])
    assert len(set(ids.tolist())) == 15


def test_recorded_speech_is_read_whole(corpora):
    for name, speakers, clips in (("speechocean762/en", 128, 1024), ("italian_prompts/it", 1, 488)):
        rows = read_table(corpora / name).rows
        assert (len({row.client_id for row in rows}), len(rows)) == (speakers, clips)
    italian = load_corpus(corpora / "italian_prompts")
    assert not italian.skipped
    assert "già" in " ".join(clip.row.sentence for clip in italian.clips)
