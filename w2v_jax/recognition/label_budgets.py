"""Few labels: subsets of the training clips that hold as many clips of each class."""

import numpy as np


def balanced_budget(labels: np.ndarray, names: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose a share of every class's clips, at least one clip of each class.

    The same seed gives subsets that are contained in one another. The order of the clips changes nothing.

    Args:
        labels: int [clip], the class of every training clip, numbered in the order of the classes' names.
        names: str [clip], such as their paths; no two are equal.
        share: of the clips, above 0, at most 1.
        seed: of the choice.

    Returns:
        Indices of the chosen clips, rising.
    """
    by_name = np.argsort(names)
    chosen = []
    for number in np.unique(labels):
        own = by_name[labels[by_name] == number]
        order = np.random.default_rng((seed, int(number))).permutation(own)
        chosen.append(order[: max(1, int(share * len(own) + 0.5))])
    return np.sort(np.concatenate(chosen))
