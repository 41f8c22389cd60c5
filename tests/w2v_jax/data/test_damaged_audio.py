"""Files that are damaged, joined or scaled in uncommon ways: nothing is lost without a word."""

import io
import itertools
import struct

import numpy as np
import pytest
import soundfile

from w2v_jax.data import audio
from w2v_jax.data.containers import mp3, ogg
from w2v_jax.errors import ClipError

RATE = 16_000
NOISE = (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
SLACK = 2000  # an mp3 encoder's delay and whole frames


def encoded(samples=NOISE, rate=RATE, **options) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, **options)
    return out.getvalue()


FILES = {
    "wav": encoded(format="WAV", subtype="PCM_16"),
    "aiff": encoded(format="AIFF"),
    "flac": encoded(format="FLAC"),
    "mp3": encoded(format="MP3"),
    "ogg": encoded(format="OGG", subtype="VORBIS"),
    "opus": encoded(format="OGG", subtype="OPUS"),
}
ID3V1 = b"TAG" + b"song".ljust(125)
ID3V2 = b"ID3\x04\0\0\0\0\0\x03abc"
APE = b"APETAGEX" + struct.pack("<4I8x", 2000, 40, 1, 0xA0000000) + b"a" * 8
APE += b"APETAGEX" + struct.pack("<4I8x", 2000, 40, 1, 0x80000000)


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def error_of(data: bytes) -> ClipError:
    with pytest.raises(ClipError) as caught:
        audio.decode_bytes(data)
    return caught.value


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_every_damaged_ogg_page_is_counted(kind):
    whole = encoded(np.tile(NOISE, 8), format="OGG", subtype=kind[-6:].upper().replace("OGG", "VORBIS"))
    assert audio.record(whole).changes == ()
    pages, at = [], 0
    while at < len(whole):
        pages.append(at)
        at, is_whole = ogg._end_of_page(whole, at)
        assert is_whole
    place = pages[-3] + 300
    flipped = changed(whole, place, bytes([whole[place] ^ 1]))
    assert audio.record(flipped).changes == (("damaged", "1 pages are damaged"),)
    # The table of segments decides where a page ends.
    table = changed(whole, pages[-3] + 27, b"\0\0")
    assert audio.record(table).changes == (("damaged", "1 pages are damaged"),)
    lost = whole[: pages[-4]] + whole[pages[-3] :]
    assert audio.record(changed(lost, place - pages[-3] + pages[-4], b"\0\0\0")).changes == (
        ("damaged", "1 pages are damaged, 1 pages are missing"),
    )
    assert audio.record(whole + flipped).changes[1] == ("damaged", "1 pages are damaged")


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(FILES, 2)))
def test_joined_files_of_unlike_formats_are_decoded_to_the_end(first, second):
    recording = audio.record(FILES[first] + FILES[second])
    assert abs(len(recording.samples) - 4 * RATE) < 2 * SLACK
    assert recording.changes == (("joined", "2 files one after the other"),)


@pytest.mark.parametrize(
    "tag", [ID3V1, ID3V2, APE, APE + ID3V1, bytes(100)], ids=["id3v1", "id3v2", "ape", "ape+id3v1", "zeros"]
)
@pytest.mark.parametrize("kind", FILES)
def test_tags_and_zeros_after_the_audio_hide_no_further_file(kind, tag):
    one = audio.record(FILES[kind] + tag)
    assert (one.changes, abs(len(one.samples) - 2 * RATE) < SLACK) == ((), True)
    two = audio.record(FILES[kind] + tag + FILES["mp3"])
    assert abs(len(two.samples) - 4 * RATE) < 2 * SLACK


def test_a_chunk_after_the_audio_or_an_unknown_size_hides_no_further_file():
    wav = FILES["wav"]
    for first in (
        wav + b"LIST\4\0\0\0abcd",
        changed(wav, 40, b"\xff\xff\xff\xff"),
        changed(wav, 40, bytes(4)),
    ):
        np.testing.assert_array_equal(audio.decode_bytes(first + wav), np.tile(audio.decode_bytes(wav), 2))


@pytest.mark.parametrize("kind", FILES)
def test_other_bytes_after_the_audio_are_listed(kind):
    recording = audio.record(FILES[kind] + b"some text " * 12)
    assert abs(len(recording.samples) - 2 * RATE) < SLACK
    ((reason, detail),) = recording.changes
    assert reason == "damaged"
    assert ("120 bytes after the audio are not read" in detail) or kind == "flac"


def test_a_wav_is_refused_where_much_follows():
    assert error_of(FILES["wav"] + b"some text " * 120).reason == "wrong header"


def test_damage_of_later_streams_is_listed():
    (part,) = mp3._parts(FILES["mp3"])[0]
    damaged = changed(FILES["mp3"], part.at[len(part.at) // 2], b"\0")
    changes = audio.record(FILES["wav"] + damaged).changes
    assert [reason for reason, _ in changes] == ["joined", "damaged"]


def test_zeros_in_place_of_mp3_frames_are_listed():
    (part,) = mp3._parts(FILES["mp3"])[0]
    first, last = part.at[8], part.at[10]
    changes = audio.record(changed(FILES["mp3"], first, bytes(last - first))).changes
    assert changes == (("damaged", f"{last - first} bytes inside are no mp3 frames"),)
    bare = FILES["mp3"][part.at[0] :]
    assert audio.record(changed(bare, first - part.at[0], bytes(last - first))).changes == changes


@pytest.mark.parametrize(
    "options",
    [
        {"subtype": "PCM_16", "endian": "LITTLE"},
        {"subtype": "FLOAT"},
        {"subtype": "DOUBLE"},
        {"subtype": "ULAW"},
    ],
)
def test_a_cut_aiff_c_is_truncated(options):
    whole = encoded(format="AIFF", **options)
    assert whole[8:12] == b"AIFC"
    assert len(audio.decode_bytes(whole)) == 2 * RATE
    assert error_of(whole[: len(whole) // 2]).reason == "truncated"


def floats(samples) -> bytes:
    return encoded(samples, format="WAV", subtype="FLOAT")


@pytest.mark.parametrize("spike", [8.0, 300.0, -3000.0])
def test_a_click_beyond_full_scale_does_not_soften_the_rest(spike):
    samples = 0.1 * NOISE
    samples[1000] = spike
    recording = audio.record(floats(samples))
    assert [reason for reason, _ in recording.changes] == ["clipped"]
    assert recording.samples[1000] == np.sign(spike) * 32767
    rest = np.delete(samples, 1000)
    np.testing.assert_allclose(np.delete(recording.samples, 1000), rest * 32767, atol=1)


def test_numbers_of_8_bits_in_floats_are_scaled_or_refused():
    recording = audio.record(floats(np.round(128 + 100 * NOISE)))
    assert [reason for reason, _ in recording.changes] == ["scaled"]
    np.testing.assert_allclose(recording.samples, np.round(100 * NOISE) / 128 * 32767, atol=1)
    assert "8-bit or 16-bit" in error_of(floats(200 * NOISE)).detail


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"\xff\xfe" + "a transcript".encode("utf-16-le") * 20, "UTF-16"),
        (b"\xff\xfe\x00\x91" * 100, "UTF-16"),
        (b"/annex/objects/SHA256E-s9--0a.wav\n", "git annex get"),
        (b"../../.git/annex/objects/a/b/SHA256E-s9--0a.wav", "git annex get"),
        (b"a transcript of the clip\n", "text, no audio"),
    ],
    ids=["utf-16", "ff fe", "annex", "annex link", "text"],
)
def test_text_in_place_of_audio_is_named(data, detail):
    error = error_of(data)
    assert error.reason == "undecodable"
    assert detail in error.detail
