import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_jax.recognition.error_rates import Errors, alignment, character_errors, word_errors

# Few distinct words, so that most pairs share some; one is a prefix of another, one is beyond ASCII.
word_lists = st.lists(st.sampled_from(["a", "ab", "b", "perché", "l'ora"]), max_size=7)


def levenshtein(reference, hypothesis):
    """Edit distance by the recursion's definition, one row at a time."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        previous, row = row, [i]
        for j, found in enumerate(hypothesis, start=1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (expected != found)))
    return row[-1]


@settings(deadline=None)
@given(word_lists, word_lists)
def test_counts_are_edit_distances(reference, hypothesis):
    expected, found = " ".join(reference), " ".join(hypothesis)
    assert word_errors(expected, found) == Errors(levenshtein(reference, hypothesis), len(reference))
    assert character_errors(expected, found) == Errors(levenshtein(expected, found), len(expected))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "characters"),
    [
        ("", "a bc", Errors(2, 0), Errors(4, 0)),  # all insertions
        ("a bc", "", Errors(2, 2), Errors(4, 4)),  # all deletions
        ("", "", Errors(0, 0), Errors(0, 0)),
        (" ", " \n", Errors(0, 0), Errors(0, 0)),
        ("a b", "ab", Errors(2, 2), Errors(1, 3)),  # a missing space is one character
        ("a b", " a  b ", Errors(0, 2), Errors(0, 3)),  # more whitespace is none
        ("a\tb", "a b", Errors(0, 2), Errors(0, 3)),
        ("A", "a", Errors(1, 1), Errors(1, 1)),  # nobody lower-cases behind our back
        ("a, b", "a b", Errors(1, 2), Errors(1, 4)),
    ],
)
def test_by_hand(reference, hypothesis, words, characters):
    assert word_errors(reference, hypothesis) == words
    assert character_errors(reference, hypothesis) == characters


def test_rates():
    assert Errors(3, 2).rate == 1.5
    assert Errors(0, 2).rate == 0.0
    assert math.isnan(Errors(0, 0).rate)
    assert Errors(1, 0).rate == math.inf


def test_a_corpus_rate_weighs_by_length_and_counts_empty_references():
    pairs = [("a b c d", "a b c x"), ("a", "b"), ("", "a b"), ("", "")]
    total = sum((word_errors(*pair) for pair in pairs), Errors(0, 0))
    assert total == Errors(4, 5)
    assert total.rate == 0.8  # the mean of the rates would be infinite


def test_alignment_is_readable_and_bare():
    assert alignment("il gatto è nero", "il gato era nero oggi").split("\n") == [
        "REF: il gatto   è nero ****",
        "HYP: il  gato era nero oggi",
        "            S   S         I",
    ]
    assert alignment("a b", "a  b\n") == "REF: a b\nHYP: a b"
    assert alignment("", "a b") == "REF: * *\nHYP: a b\n     I I"
    assert alignment("a b", "") == "REF: a b\nHYP: * *\n     D D"
    assert alignment("", "") == "REF:\nHYP:"
