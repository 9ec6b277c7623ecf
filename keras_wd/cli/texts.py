"""Texts as rows: which of the most frequent words a text has."""

from collections.abc import Mapping

import keras
import numpy as np

WORDS = 2000
_CHUNK = 1024  # texts


def are_texts(inputs: np.ndarray) -> bool:
    """Whether these are strings, one for each example."""
    return inputs.ndim == 1 and inputs.dtype.kind in "USO"


def vectorized(
    texts: Mapping[str, np.ndarray], words: int | None
) -> dict[str, np.ndarray]:
    """Rows of booleans by split, by Keras's `TextVectorization`.

    Args:
        texts: by split. The words are those of "train".
        words: how many are told apart, the most frequent ones; None for
            `WORDS`. One column besides stands for all others.
    """
    layer = keras.layers.TextVectorization(
        max_tokens=(words or WORDS) + 1, output_mode="multi_hot"
    )
    layer.adapt(list(texts["train"]), batch_size=_CHUNK)
    return {
        split: np.concatenate([
            np.asarray(layer(list(some[at : at + _CHUNK]))).astype(bool)
            for at in range(0, len(some), _CHUNK)
        ])
        for split, some in texts.items()
    }  # fmt: skip
