"""Speech recognition by CTC as a task of fine-tuning."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.data.transcribed import Transcribed
from experiments.recognition import labelled_splits
from experiments.recognition.clients.labelled_clients import WITHHELD
from experiments.recognition.recipes import FineTuningRecipe
from experiments.recognition.results import finish
from experiments.recognition.scoring import LONGEST_WHOLE_SECONDS, Recognised, Scorer
from experiments.recognition.task import MODEL_FIELDS, Line, or_infinite
from experiments.runs.folder import RunFolder
from w2v_jax.config import ModelConfig
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.data.common_voice import column
from w2v_jax.recognition.ctc import RecognizerConfig, recognizer
from w2v_jax.recognition.frames import FramesConfig
from w2v_jax.recognition.heads import HeadConfig
from w2v_jax.recognition.training import TrainingState
from w2v_jax.text.rules import DOTLESS, TextRules
from w2v_jax.text.storage import save_tokenizer


class RecognitionTask:
    """Recognises characters or pieces; see `task.FineTuningTask`."""

    score_name, lower_is_better = "WER", True

    def __init__(self, settings: dict[str, Any], model: ModelConfig, recipe: FineTuningRecipe):
        self._settings = settings
        self._rules = TextRules(
            accents=settings["accents"], apostrophes=settings["apostrophes"], language=settings["language"]
        )
        held = labelled_splits.load(
            settings,
            self._rules,
            recipe,
            model.receptive_field_samples,
            FramesConfig(model=model, features=settings["features"]).frame_samples,
        )
        self.train, self.splits, self.evaluation = held.train, held.transcribed, held.evaluation
        self._one_shape = held.one_shape
        self.tokenizer, self._unknown = held.tokenizer, held.unknown
        self.config = RecognizerConfig(
            model=model,
            head=HeadConfig(
                num_tokens=self.tokenizer.num_tokens,
                num_blocks=settings["head_blocks"],
                width=settings["head_width"] or recipe.head_width,
            ),
            features=settings["features"],
            frozen=settings["freeze"],
        )
        made = recognizer(self.config)
        self.objective = made.objective
        self._scorer = Scorer(made, self.tokenizer, self.config.frame_samples)

    def one_shape(self) -> LabelledBatches:
        return self._one_shape

    def facts(self) -> dict[str, Any]:
        return {"tokens": self.tokenizer.num_tokens, "characters_without_token": self._unknown}

    def pin(self, folder: RunFolder) -> None:
        folder.pin("recognizer.json", dataclasses.asdict(self.config), MODEL_FIELDS)
        save_tokenizer(folder.path, self.tokenizer, self._rules)

    def described(self) -> str:
        """Count the tokens, and tell the language, long clips and shared speakers, if any."""
        language = self._settings["language"]
        long = sum(len(clips.long) for clips in self.evaluation.values())
        told = language.split("-")[0] in DOTLESS
        tested, trained = (set(column(self.splits[split].clips, "client_id")) for split in ("test", "train"))
        shared = f", {len(tested & trained)} of test's {len(tested)} speakers are in train too"
        return (
            f"{self.tokenizer.num_tokens} tokens"
            + f", letter case of {language} (--language)" * told
            + f", {long} clips of over {LONGEST_WHOLE_SECONDS:.0f} s recognised in windows" * bool(long)
            + shared * bool(tested & trained)
        )

    def recognise(self, split: str, state: TrainingState) -> Recognised:
        """Transcribe a split greedily, and score it."""
        held: Transcribed = self.splits[split]
        return self._scorer.recognise(state, self.evaluation[split], held)

    def score(self, state: TrainingState, indices: Sequence[int]) -> float:
        held = self._scorer.recognise(state, self.evaluation[WITHHELD], self.splits[WITHHELD], indices)
        return held.rates()["wer"]

    def validate(self, state: TrainingState) -> dict[str, Any]:
        rates = self.recognise("dev", state).rates()
        return {name: rates[name] for name in ("loss", "wer", "cer", "empty_hypotheses")}

    def best(self, lines: list[Line]) -> Line:
        return best_line(lines, self._settings["select_by"])

    def told(self, line: Line) -> str:
        return f"WER {100 * line['dev_wer']:.1f} %  CER {100 * line['dev_cer']:.1f} %"

    def finish(
        self, folder: RunFolder, state: TrainingState, lines: list[Line], personalised: Line | None
    ) -> None:
        finish(folder, self.recognise("test", state), self.best(lines), lines, personalised)


def best_line(lines: list[Line], select_by: str) -> Line:
    """Find the validation with the lowest WER, CER or loss; the other two, then the order, break ties."""
    order = sorted(("wer", "cer", "loss"), key=lambda name: name != select_by)
    return min(lines, key=lambda line: tuple(or_infinite(line[f"dev_{name}"]) for name in order))
