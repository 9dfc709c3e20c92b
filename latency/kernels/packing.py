"""Weights and channels' constants in the order in which native code reads them."""

from __future__ import annotations

import numpy as np

LANES = 16  # channels of a vector
INPUTS = 4  # that a lane multiplies at once

# Below this share of blocks that are not zero, zeros are skipped: above it, looking blocks up costs what they save.
SPARSE_BELOW = 0.8


def rounded_up(count: int, multiple: int) -> int:
    """The least multiple that is not below `count`."""
    return -(-count // multiple) * multiple


def by_channel(values: np.ndarray, channels: int) -> np.ndarray:
    """Numbers (c,), or (1,) for all channels and what lies behind them, of whole vectors; behind others is 0."""
    size = rounded_up(channels, LANES)
    return np.full(size, values[0]) if len(values) == 1 else np.pad(values, (0, size - channels))


def _blocks(weight: np.ndarray) -> np.ndarray:
    """int8 (out, k) as (vectors, groups of inputs, 16, 4), with zeros behind both."""
    outputs, inputs = weight.shape
    padded = np.zeros((rounded_up(outputs, LANES), rounded_up(inputs, INPUTS)), np.int8)
    padded[:outputs, :inputs] = weight
    split = padded.reshape(len(padded) // LANES, LANES, -1, INPUTS)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3))


def dense(weight: np.ndarray) -> np.ndarray:
    """Weights int8 (out, in, k_h, k_w) of patches, whose numbers stand in the order (k_h, k_w, in)."""
    return _blocks(weight.transpose(0, 2, 3, 1).reshape(len(weight), -1))


def sparse(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Blocks of such weights that are not zero, and where they stand; None where most are not.

    The second is int32: for each vector of outputs where its blocks begin, their number at the end, then the group of
    inputs of each.
    """
    blocks = dense(weight)
    kept = blocks.any((2, 3))
    if kept.mean() >= SPARSE_BELOW:
        return None
    begins = np.concatenate([[0], np.cumsum(kept.sum(1))])
    return blocks[kept], np.concatenate([begins, np.nonzero(kept)[1]]).astype(np.int32)


def shifted(weight: np.ndarray) -> np.ndarray:
    """Depthwise weights int8 (c, 1, k, k) as (vectors, words, k, 16, 4): rows in a lane of a word, the newest last."""
    channels, _, rows, columns = weight.shape
    words = rows // INPUTS + 1
    padded = np.zeros((rounded_up(channels, LANES), words * INPUTS, columns), np.int8)
    padded[:channels, words * INPUTS - rows :] = weight[:, 0]
    split = padded.reshape(-1, LANES, words, INPUTS, columns)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 1, 3))


def single(weight: np.ndarray) -> np.ndarray:
    """Depthwise weights int8 (c, 1, k_h, k_w) as (vectors, k_h, k_w, 16, 4), each alone in its lane."""
    channels, _, rows, columns = weight.shape
    padded = np.zeros((rounded_up(channels, LANES), rows, columns, INPUTS), np.int8)
    padded[:channels, :, :, 0] = weight[:, 0]
    return np.ascontiguousarray(padded.reshape(-1, LANES, rows, columns, INPUTS).transpose(0, 2, 3, 1, 4))
