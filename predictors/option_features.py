"""Architectures as numbers whose differences mean something: which options are taken, and how often each is.

Ordered options (numbers, from small to large) are coded as a thermometer, so that 3 is nearer to 5 than to 7;
others one by one.  Choices with the same options share columns that count how often each is taken in the whole
network, so that what one layer teaches about an operation carries over to the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.space import SearchSpace
from search_spaces.value import Choice


@dataclass(frozen=True, eq=False)
class OptionFeatures:
    """The columns of a space's architectures.

    Args:
        columns: pairs (choice, option index) of the first f columns.
        counted: which columns each counting column adds up, and by what it divides (f, k).
        choice: what each of the f + k columns belongs to; one number for all counts of a list of options.
        option: an option's number, shared by all choices that have the same list.
    """

    space: SearchSpace
    columns: tuple[tuple[int, int], ...]
    counted: np.ndarray
    choice: np.ndarray
    option: np.ndarray

    def __call__(self, population: np.ndarray) -> np.ndarray:
        """The features of a canonical population (n, d): float32 (n, f + k), zeros where a choice is inactive."""
        taken = np.empty((len(population), len(self.columns)), dtype=np.float32, order="F")
        last = -1
        for position, (j, index) in enumerate(self.columns):
            if j != last:
                column = np.ascontiguousarray(population[:, j])
                active, compare, last = self.space.active_column(population, j), _compare(self.space.choices[j]), j
            compare(column, index, out=taken[:, position], casting="unsafe")
            if index == 0 and active is not None:
                taken[:, position] *= active
        return np.concatenate([taken, taken @ self.counted], axis=1)


def option_features(space: SearchSpace) -> OptionFeatures:
    """The features of a space's architectures."""
    columns: list[tuple[int, int]] = []
    for j, choice in enumerate(space.choices):
        # That an ordered choice stands at its first option or above says only that it is active.
        first = int(is_ordered(choice) and not choice.when)
        columns += [(j, index) for index in range(first, len(choice.options))]
    columns = columns or [(0, 0)]  # nothing to choose: one constant, since not every method can do without columns
    keys = [(space.choices[j].options, index) for j, index in columns]
    option = _numbered(keys)
    shared = [k for k in np.unique(option) if (option == k).sum() > 1]
    counted = np.array([(option == k) / np.sqrt((option == k).sum()) for k in shared], dtype=np.float32)
    lists = _numbered([options for options, _ in keys])
    members = [int(np.flatnonzero(option == k)[0]) for k in shared]
    return OptionFeatures(
        space,
        tuple(columns),
        counted.reshape(len(shared), len(columns)).T,
        np.concatenate([[j for j, _ in columns], [len(space) + lists[m] for m in members]]).astype(int),
        np.concatenate([option, [option[m] for m in members]]).astype(int),
    )


def is_ordered(choice: Choice) -> bool:
    """Whether a choice's options are numbers that grow."""
    numbers = all(isinstance(option, (int, float)) for option in choice.options)
    return numbers and list(choice.options) == sorted(choice.options)


def _compare(choice: Choice) -> np.ufunc:
    return np.greater_equal if is_ordered(choice) else np.equal


def _numbered(keys: Sequence[Hashable]) -> np.ndarray:
    """Each key's number (n,), in the order of first appearance."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=int)
