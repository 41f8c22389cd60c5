"""The splits of a fine-tuning run: transcripts as token ids, in batches."""

import dataclasses
from typing import Any

from experiments.data import transcribed
from experiments.data.transcribed import Transcribed
from experiments.recognition.clients.labelled_clients import WITHHELD, withhold
from experiments.recognition.recipes import FineTuningRecipe
from experiments.recognition.scoring import EvaluationClips, evaluation_clips
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.batches.augmentation import NONE, Augmentation
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.errors import UserError
from w2v_jax.text.rules import TextRules
from w2v_jax.text.tokenizers import CharacterTokenizer, Tokenizer, train_characters, train_pieces


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledSplits:
    """Splits with their labels.

    Attributes:
        transcribed: clips and texts by split.
        tokenizer: made from the training texts.
        unknown: characters without a token, by split.
        train: training batches.
        one_shape: training batches in one bucket.
        evaluation: clips of the other splits to recognise.
    """

    transcribed: dict[str, Transcribed]
    tokenizer: Tokenizer
    unknown: dict[str, Any]
    train: LabelledBatches
    one_shape: LabelledBatches
    evaluation: dict[str, EvaluationClips]


def load(
    settings: dict[str, Any], rules: TextRules, recipe: FineTuningRecipe, min_samples: int, frame_samples: int
) -> LabelledSplits:
    """Read the splits that a run's settings name.

    Args:
        settings: the settings of the run.
        rules: for transcripts.
        recipe: the recipe of the model's size.
        min_samples: shorter clips are left out.
        frame_samples: the model's samples a frame.

    Raises:
        UserError: batches cannot hold the longest training clips.
    """
    splits = transcribed.load(
        settings["data"],
        rules,
        min_samples=min_samples,
        max_samples=round(settings["max_seconds"] * SAMPLE_RATE_HZ),
        seed=settings["seed"],
    )
    train = splits["train"]
    if settings["train_minutes"]:
        train = transcribed.within_minutes(train, settings["train_minutes"])
    if settings["personalise"] is not None:
        train, splits[WITHHELD] = withhold(train, settings["seed"])
    tokenizer = make_tokenizer(settings, train.texts)
    splits["train"] = (
        transcribed.shuffled(train, settings["seed"]) if settings["shuffle_transcripts"] else train
    )
    shape = batch_shape(settings, recipe)
    labels, unknown = {}, {}
    for split, held in splits.items():
        labels[split], unknown[split] = transcribed.labels_of(held, tokenizer)
    return LabelledSplits(
        transcribed=splits,
        tokenizer=tokenizer,
        unknown=unknown,
        train=training_batches(splits["train"], labels["train"], settings, shape),
        one_shape=training_batches(splits["train"], labels["train"], settings, shape | {"num_buckets": 1}),
        evaluation={
            split: evaluation_clips(held, labels[split], frame_samples, **shape)
            for split, held in splits.items()
            if split != "train"
        },
    )


def batch_shape(settings: dict[str, Any], recipe: FineTuningRecipe) -> dict[str, Any]:
    """Choose the arguments of LabelledBatches that all splits of a run share.

    Raises:
        UserError: batches cannot hold the longest training clips.
    """
    batch_seconds = settings["batch_seconds"] or recipe.batch_seconds
    if batch_seconds < settings["max_seconds"]:
        raise UserError(
            f"batches of {batch_seconds:g} s cannot hold clips of --max-seconds {settings['max_seconds']:g}: "
            "give a larger --batch-seconds"
        )
    return {
        "batch_samples": round(batch_seconds * SAMPLE_RATE_HZ),
        "num_buckets": recipe.buckets,
        "identity": (settings["seed"],),
    }


def training_batches(
    train: Transcribed, labels: list[list[int]], settings: dict[str, Any], shape: dict[str, Any]
) -> LabelledBatches:
    """Make the batches of a training split, augmented as the settings say."""
    augmentation = Augmentation() if settings["augment"] else NONE
    return LabelledBatches(train.clips, labels, augmentation=augmentation, **shape)


def make_tokenizer(settings: dict[str, Any], texts: list[str]) -> Tokenizer:
    """Make the tokenizer that a run's settings ask for, from its training transcripts.

    Raises:
        UserError: `--alphabet` lacks characters of the transcripts, all of which are named.
    """
    if settings["tokens"] == "pieces":
        return train_pieces(texts, settings["pieces"])
    if settings["alphabet"] is None:
        return train_characters(texts)
    tokenizer = CharacterTokenizer(settings["alphabet"] + " ")
    tokenizer.encode("".join(texts))  # all that it lacks at once
    return tokenizer
