"""The characters that can be written from frames: layers chosen on dev, scored on test."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.probe.encoded import ClipFrames
from experiments.probe.judgement import HEADS, mean_interval
from experiments.probe.metrics import CHARACTER_ERROR_RATE
from experiments.probe.options import Head
from experiments.probe.transcribed_clips import TranscribedClips
from w2v_jax.recognition import character_probes
from w2v_jax.recognition.character_probes import CharacterProbes, layer_weights
from w2v_jax.recognition.error_rates import Errors, character_errors
from w2v_jax.recognition.label_budgets import balanced_budget

RATE, DEV_RATE = CHARACTER_ERROR_RATE.key, CHARACTER_ERROR_RATE.dev_key
EXAMPLES = 8
Score = dict[str, Any]


def judge(
    frames: ClipFrames, held: TranscribedClips, heads: Sequence[Head], shares: Sequence[float], seed: int
) -> dict[str, Any]:
    """Train probes of every layer, and score on test those that err least on dev.

    Args:
        frames: of all clips, in their order.
        held: the clips and their transcripts.
        heads: kinds of probe beside linear ones.
        shares: of the training clips that linear probes are also trained with, between 0 and 1.
        seed: of the networks, of the batches and of the choice of clips.

    Returns:
        As `judgement.judge`, with character error rates in place of accuracies.
    """
    train = held.of("train")
    kinds = [HEADS[head] for head in HEADS if head in heads or head == "linear"]
    found: dict[str, Any] = {"layers": {name: {} for name in frames.layers}}
    probes = _train(frames, held, train, kinds, seed)
    for kind, scores in _scores(probes, frames, held).items():
        for score in scores:
            if score["layer"]:
                found["layers"][score["layer"]][kind] = {name: score[name] for name in (DEV_RATE, RATE)}
        found[kind] = CHARACTER_ERROR_RATE.best(scores)
    if "weighted_sum" in kinds:
        weights = dict(zip(frames.layers, layer_weights(probes), strict=True))
        found["weighted_sum"] |= {"weights": weights}
    found["budgets"] = []
    for share in shares:
        # Transcripts have no classes to balance: all clips are of one.
        few = train[balanced_budget(np.zeros(len(train), int), held.paths()[train], share, seed)]
        scores = _scores(_train(frames, held, few, ["linear"], seed), frames, held)["linear"]
        found["budgets"].append({"share": share, "clips": len(few)} | CHARACTER_ERROR_RATE.best(scores))
    return found


def _train(
    frames: ClipFrames, held: TranscribedClips, chosen: np.ndarray, kinds: Sequence[Any], seed: int
) -> CharacterProbes:
    return character_probes.train(
        [frames.of_clips[index] for index in chosen],
        [held.tokenizer.encode(text) for text in held.texts[chosen].tolist()],
        held.paths()[chosen].tolist(),
        kinds,
        held.tokenizer.num_tokens,
        seed,
    )


def _scores(probes: CharacterProbes, frames: ClipFrames, held: TranscribedClips) -> dict[str, list[Score]]:
    """Score every probe on dev and test, by kind and in the order of the layers."""
    written: dict[str, dict[str, list[list[str]]]] = defaultdict(dict)
    for split in ("dev", "test"):
        found = probes.transcribe([frames.of_clips[index] for index in held.of(split)])
        for kind, each in found.items():
            written[kind][split] = [list(map(held.tokenizer.decode, tokens)) for tokens in each]
    scores: dict[str, list[Score]] = {}
    for kind, texts in written.items():
        names = frames.layers if len(texts["dev"]) == len(frames.layers) and kind != "weighted_sum" else ("",)
        scores[kind] = [
            {"layer": name} | scored(dev, test, held) | {"updates": probes.updates}
            for name, dev, test in zip(names, texts["dev"], texts["test"], strict=True)
        ]
    return scores


def scored(dev: Sequence[str], test: Sequence[str], held: TranscribedClips) -> Score:
    """Score the texts that a probe wrote for the clips of dev and test.

    Returns:
        character_error_rate over all characters of test, and the same of dev; edits and characters of test;
        by_speaker, the rate of each test speaker; interval, the 95 % interval of the speakers' mean by
        Student's t (None for a single speaker); and some transcripts of test, as (spoken, written).
    """
    texts = held.texts[held.of("test")].tolist()
    errors = [character_errors(*pair) for pair in zip(texts, test, strict=True)]
    speakers = held.speakers()[held.of("test")].tolist()
    each: dict[str, Errors] = {name: Errors(0, 0) for name in sorted(set(speakers))}
    for speaker, found in zip(speakers, errors, strict=True):
        each[speaker] += found
    by_speaker = {name: found.rate for name, found in each.items()}
    total = sum(errors, Errors(0, 0))
    dev_texts = held.texts[held.of("dev")].tolist()
    dev_errors = [character_errors(*pair) for pair in zip(dev_texts, dev, strict=True)]
    return {
        RATE: total.rate,
        "interval": mean_interval(list(by_speaker.values())),
        DEV_RATE: sum(dev_errors, Errors(0, 0)).rate,
        "by_speaker": by_speaker,
        "edits": total.edits,
        "characters": total.length,
        "transcripts": list(zip(texts, test, strict=True))[:EXAMPLES],
    }
