"""Word and character error rates, as counts that add up over a corpus."""

import dataclasses
import math

import jiwer


@dataclasses.dataclass(frozen=True)
class Errors:
    """Edits (substitutions, insertions, deletions) against a reference of `length` words or characters.

    `sum(errors, Errors(0, 0))` over utterances gives the errors of the corpus.
    """

    edits: int
    length: int

    @property
    def rate(self) -> float:
        """Edits over length, where 1.0 is 100 %; with an empty reference nan, or inf if there are edits."""
        if self.length:
            return self.edits / self.length
        return math.inf if self.edits else math.nan

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(self.edits + other.edits, self.length + other.length)


def word_errors(reference: str, hypothesis: str) -> Errors:
    """Count the fewest word edits from `reference` to `hypothesis`; whitespace separates words."""
    expected, found = reference.split(), hypothesis.split()
    if not expected or not found:
        return Errors(len(expected) + len(found), len(expected))
    return _count(jiwer.process_words(" ".join(expected), " ".join(found)))


def character_errors(reference: str, hypothesis: str) -> Errors:
    """Count the fewest character edits; one space between words counts, further whitespace does not."""
    expected, found = _collapse(reference), _collapse(hypothesis)
    if not expected or not found:
        return Errors(len(expected) + len(found), len(expected))
    return _count(jiwer.process_characters(expected, found))


def alignment(reference: str, hypothesis: str) -> str:
    """Align two texts word by word, *** for no word, with S, I and D below the words that differ.

    The result has two lines (REF, HYP) where nothing differs, and three otherwise.
    """
    output = jiwer.process_words(_collapse(reference), _collapse(hypothesis))
    drawn = jiwer.visualize_alignment(output, show_measures=False, skip_correct=False)
    lines = drawn.split("\n")
    first = next(number for number, line in enumerate(lines) if line.startswith("REF:"))
    return "\n".join(line.rstrip() for line in lines[first : first + 3]).rstrip()


def _collapse(text: str) -> str:
    return " ".join(text.split())


def _count(output: jiwer.WordOutput | jiwer.CharacterOutput) -> Errors:
    length = output.hits + output.substitutions + output.deletions
    return Errors(output.substitutions + output.insertions + output.deletions, length)
