"""Reports of fine-tuning: sentences that follow the metrics and results of the run."""

from experiments.recognition import keyword_report, outcome, report

PROVENANCE = {
    "command": "w2v-jax finetune", "commit": "abc", "versions": {"jax": "0"}, "device": "1 x cpu", "cores": 2,
    "xla_flags": "--flag",
}  # fmt: skip
SPLIT = {
    "source": "train.tsv", "clips": 40, "seconds": 120.0, "speakers": 3, "sentences": 4, "words": 90,
    "dropped": {}, "changed": {},
}  # fmt: skip
DATA = {
    "train": SPLIT, "dev": SPLIT, "test": SPLIT, "tokens": 21, "characters_without_token": {}, "updates": 30,
    "classes": 4, "test_speakers_in_train": 0,
}  # fmt: skip
ENCODER = {"init": "runs/pre", "model": "tiny"}
SETTINGS = {
    "features": "encoder", "select_by": "wer", "shuffle_transcripts": False, "tokens": "characters",
    "accents": "keep", "apostrophes": "keep", "freeze": "none", "head_blocks": 0, "head_optimizer": "adam",
    "seed": 0, "column": "sentence", "labels": None, "pooling": "mean", "segments": 1, "layers": "last",
}  # fmt: skip
LINES = [
    {"update": 10 * place, "loss": 4.0 - place, "dev_loss": loss, "dev_wer": wer, "skipped_updates": 1,
     "dev_accuracy": 1 - wer}
    for place, (loss, wer) in enumerate([(3.5, 0.9), (2.5, 0.4), (None, 0.6)], 1)
]  # fmt: skip
SPEAKERS = [("a", 0.8), ("b", 0.6), ("c", 0.0)]
RECOGNISED = {
    "test": {
        "wer": 0.5, "cer": 0.25, "loss": 2.0, "word_edits": 45, "words": 90, "utterances": 12,
        "empty_hypotheses": 1, "infeasible": 2,
    },
    "dev": {"wer": 0.4, "cer": 0.2, "loss": 2.5},
    "best_update": 20, "updates": 30, "audio_seconds": 1200.0, "train_seconds": 61.0,
    "per_speaker": [{"speaker": name, "utterances": 4, "wer": wer, "cer": wer} for name, wer in SPEAKERS],
    "worst": [{"path": "x.wav", "wer": 1.0, "cer": 1.0, "alignment": "REF: one"}], "provenance": PROVENANCE,
}  # fmt: skip
NAMED = RECOGNISED | {
    "test": {
        "accuracy": 0.6, "loss": 1.0, "clips": 20, "speakers": 2, "speaker_mean": 0.55,
        "speaker_interval": 0.1, "of_unseen_classes": 0,
    },
    "dev": {"accuracy": 0.6, "loss": 2.5},
    "per_speaker": [{"speaker": "a", "clips": 20, "accuracy": 0.6}],
    "per_class": [
        {"class": name, "clips": clips, "accuracy": share}
        for name, clips, share in [("no", 2, 0.0), ("yes", 10, 0.6), ("go", 8, 1.0)]
    ],
    "confusions": [{"class": "yes", "guess": "go", "clips": 4}, {"class": "no", "guess": "go", "clips": 2}],
}  # fmt: skip


def test_a_recognizers_report_begins_with_what_came_of_it():
    found = outcome.recognition(LINES, RECOGNISED, SETTINGS, DATA, ENCODER)
    assert found == [
        "A recognizer of 21 tokens was trained on the encoder of runs/pre (`tiny`) with 40 clips of 3 "
        "speakers (2.0 min): 30 updates went through 1,200 s of speech, with repeats, in 1 min 1 s.",
        # Student's t of two degrees of freedom: 4.303 x 0.4163 / sqrt(3).
        "Test WER is **50.0 %** and CER **25.0 %**: 45 edits in 90 words of 12 clips (mean WER over 3 "
        "speakers 46.7 % ± 103.4, 95 % t interval).",
        "1 of 12 transcripts are empty; a model that writes nothing has a WER of 100 %.",
        "Update 20 of 30, the best by validation WER, was scored: its validation WER was 40.0 %, against "
        "90.0 % after update 10 and 60.0 % after update 30.",
        "From update 10 to update 30 the loss went from 3.000 to 1.000 nats a token in training and from "
        "3.500 to not finite in validation.",
        "3 updates were left out because they were not finite.",
        "The speakers with the highest WER are a (80.0 %) and b (60.0 %).",
    ]
    text = report.markdown(LINES, RECOGNISED, SETTINGS, DATA, ENCODER, health="## Health\n", worst="none")
    assert text.startswith("# Fine-tuning: encoder from runs/pre\n\n- A recognizer of 21 tokens")
    assert "2 test clips have fewer frames than their transcripts need" in text
    assert text.count("<details>") == 3


def test_a_short_run_on_log_mel_says_no_more_than_it_has():
    result = RECOGNISED | {"best_update": 10, "updates": 10, "per_speaker": RECOGNISED["per_speaker"][:1]}
    lines = [LINES[0] | {"skipped_updates": 0}]
    found = outcome.recognition(lines, result, SETTINGS | {"features": "log-mel"}, DATA, ENCODER)
    assert "on log-mel bands with 40 clips" in found[0]
    assert "10 of 30 planned updates" in found[0]
    assert "(no interval: one speaker)" in found[1]
    assert found[3].endswith("was scored: its validation WER was 40.0 %.")
    assert found[4:] == ["", "", ""]


def test_a_keyword_report_compares_with_the_most_frequent_class():
    settings = SETTINGS | {"select_by": "accuracy"}
    found = outcome.keywords(LINES, NAMED, settings, DATA, ENCODER)
    assert found[1] == (
        "Test accuracy is **60.0 % of 20 clips (mean over 2 speakers 55.0 % ± 10.0, 95 % t interval)**."
    )
    assert found[2] == (
        "Always guessing the most frequent class would be right on 50.0 %, which is 10.0 points less and "
        "lies within the interval over speakers."
    )
    assert "validation accuracy was 60.0 %, against 10.0 % after update 10" in found[3]
    assert found[6:] == [
        "The classes with the lowest accuracy are no (0.0 %) and yes (60.0 %).",
        "The most frequent confusions are yes taken for go (4 clips) and no taken for go (2 clips).",
        "",
    ]
    worse = NAMED | {"test": NAMED["test"] | {"accuracy": 0.4, "speaker_mean": 0.3}}
    assert "10.0 points more and lies outside the interval" in outcome.over_most_frequent(worse)
    text = keyword_report.markdown(LINES, NAMED, settings, DATA, ENCODER, health="## Health\n")
    assert text.startswith("# Keyword spotting: encoder from runs/pre\n\n- A keyword spotter of 4 classes")
    assert text.index("## Health") > text.index("- The most frequent")
