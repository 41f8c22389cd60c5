"""Files whose headers are wrong or missing: decoded to the end, or left out with a reason."""

import io
import struct

import numpy as np
import pytest
import soundfile

from w2v_jax.data import audio, containers
from w2v_jax.data.containers import mp3
from w2v_jax.errors import ClipError

RATE = 16_000
NOISE = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
NOISE[RATE // 2 :] *= 0.01  # loud, then soft: bit rates vary


def encoded(samples=NOISE, rate=RATE, **options) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, **options)
    return out.getvalue()


WAV = encoded(format="WAV", subtype="PCM_16")
FLAC = encoded(format="FLAC")
MP3 = encoded(format="MP3")
OGG = encoded(format="OGG", subtype="VORBIS")
OPUS = encoded(format="OGG", subtype="OPUS")
AUDIO_BYTES = len(WAV) - 44


def bare_mp3() -> bytes:
    """An mp3 of varying bit rate as it is written into a pipe: without its first frame, the Xing header."""
    (part,) = mp3._parts(MP3)[0]
    return MP3[part.at[0] :]


def reason_of(data: bytes) -> str:
    with pytest.raises(ClipError) as caught:
        audio.decode_bytes(data)
    return caught.value.reason


def test_an_mp3_without_a_xing_header_is_decoded_whole():
    data = bare_mp3()
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert file.frames < 0.9 * RATE  # the guess from the first frame
    assert abs(len(audio.decode_bytes(data)) - RATE) < 1800  # an encoder's delay and whole frames
    assert abs(len(audio.decode_bytes(b"ID3\x04\0\0\0\0\0\x03abc" + data)) - RATE) < 1800


@pytest.mark.parametrize("whole", [WAV, FLAC, MP3, OGG, OPUS], ids=["wav", "flac", "mp3", "ogg", "opus"])
def test_joined_files_are_decoded_to_the_end_and_listed(whole):
    one = audio.decode_bytes(whole)
    two = audio.record(whole + whole)
    np.testing.assert_array_equal(two.samples, np.concatenate([one, one]))
    assert two.changes == (("joined", "2 files one after the other"),)
    assert audio.record(whole).changes == ()
    assert reason_of(whole + whole[: len(whole) // 2]) == "truncated"


def test_mp3s_of_other_rates_tags_and_headers_are_joined_too():
    other = encoded(np.stack([NOISE, NOISE], axis=1), 48_000, format="MP3")
    tag = b"ID3\x04\0\0\0\0\0\x03abc"
    for second, expected in ((other, RATE // 3), (tag + MP3, RATE), (bare_mp3(), RATE)):
        assert abs(len(audio.decode_bytes(MP3 + second)) - RATE - expected) < 1800


def test_mp3_tags_at_the_end_are_no_audio_and_lost_frames_are_listed():
    assert audio.record(MP3 + b"TAG" + bytes(125)).changes == ()
    (part,) = mp3._parts(MP3)[0]
    damaged = bytearray(MP3)
    damaged[part.at[len(part.at) // 2]] = 0
    ((reason, detail),) = audio.record(bytes(damaged)).changes
    assert (reason, "are no mp3 frames" in detail) == ("damaged", True)


def flac_claiming(samples: int, data: bytes = FLAC) -> bytes:
    return data[:21] + bytes([data[21] & 0xF0]) + struct.pack(">I", samples) + data[26:]


@pytest.mark.parametrize("claimed", [0, RATE // 2])
@pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(125)])
def test_a_flac_is_as_long_as_its_frames(claimed, tail):
    np.testing.assert_array_equal(audio.decode_bytes(flac_claiming(claimed) + tail), audio.decode_bytes(FLAC))


def test_a_flac_of_unknown_length_that_was_cut_is_truncated():
    unknown = flac_claiming(0)
    assert reason_of(unknown[: 3 * len(unknown) // 4]) == "truncated"
    assert reason_of(flac_claiming(2 * RATE)) == "truncated"


def wav_claiming(riff: int, data: int, body: bytes = WAV[44:]) -> bytes:
    sizes = struct.pack("<I", riff & 0xFFFFFFFF), struct.pack("<I", data & 0xFFFFFFFF)
    return b"RIFF" + sizes[0] + WAV[8:40] + sizes[1] + body


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0, 0),
        (-1, -1),
        (-1, -37),
        (0x7FFFFFFF, 0x7FFFFFFF - 36),
        (0x7FFFF024, 0x7FFFF000),
        (len(WAV), AUDIO_BYTES),
        (len(WAV), len(WAV)),
        (len(WAV) - 7, AUDIO_BYTES),
        (len(WAV) - 7, AUDIO_BYTES + 1),
        (3, AUDIO_BYTES),
    ],
)
def test_wav_sizes_of_streaming_and_careless_writers(riff, data):
    np.testing.assert_array_equal(audio.decode_bytes(wav_claiming(riff, data)), audio.decode_bytes(WAV))


def test_a_wav_is_judged_by_its_data_chunk():
    cut = WAV[44:-1000]
    assert reason_of(wav_claiming(len(cut) + 36, AUDIO_BYTES, cut)) == "truncated"
    assert reason_of(wav_claiming(len(WAV) - 8, AUDIO_BYTES // 2)) == "wrong header"
    assert reason_of(wav_claiming(36, 0, b"LIST\4\0\0\0abcd")) == "empty"
    assert len(audio.decode_bytes(WAV + b"LIST\4\0\0\0abcd")) == RATE
    for kind in ("RF64", "WAVEX", "AIFF"):
        whole = encoded(format=kind)
        assert len(audio.decode_bytes(whole)) == RATE
        assert reason_of(whole[: len(whole) // 2]) == "truncated"


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:8a\nsize 3\n", "git lfs pull"),
        (b"\0\0\0\x20ftypM4A " + bytes(100), "MP4"),
        (b"\x1a\x45\xdf\xa3" + bytes(100), "WebM"),
        (encoded(format="AU"), "AU file: convert it"),
    ],
)
def test_files_that_are_no_audio_are_told_what_they_are(data, detail):
    with pytest.raises(ClipError, match=detail):
        audio.decode_bytes(data)


def test_headers_that_are_right_are_left_alone():
    for whole in (WAV, FLAC, MP3, OGG):
        (stream,) = containers.streams(whole)
        assert stream.data == whole


def stereo(left, right) -> bytes:
    return encoded(np.stack([left, right], axis=1), format="WAV", subtype="FLOAT")


@pytest.mark.parametrize("right", [-NOISE, -0.99 * NOISE, np.float32(0.05) * NOISE - NOISE])
def test_channels_that_cancel_are_not_averaged(right):
    recording = audio.record(stereo(NOISE, right))
    np.testing.assert_allclose(np.abs(recording.samples), np.abs(np.round(NOISE * 32767)), atol=1700)
    assert [reason for reason, _ in recording.changes] == ["one channel taken"]


def test_channels_that_agree_or_are_silent_are_averaged():
    for right in (NOISE, 0 * NOISE, NOISE[::-1]):
        recording = audio.record(stereo(NOISE, right))
        assert recording.changes == ()
        np.testing.assert_array_equal(recording.samples, np.round((NOISE + right) / 2 * 32767))


@pytest.mark.parametrize(("gain", "expected"), [(32767, 1.0), (12.0, None), (2.0**31, None), (1.0, 1.0)])
def test_floats_beyond_full_scale_are_divided_and_listed(gain, expected):
    recording = audio.record(encoded(NOISE * gain, format="WAV", subtype="DOUBLE"))
    scale = expected or 1 / np.abs(NOISE).max()
    np.testing.assert_allclose(recording.samples, NOISE * scale * 32767, atol=1.5)
    assert [reason for reason, _ in recording.changes] == ["scaled"] * (gain > 1)
