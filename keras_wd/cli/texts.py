"""Texts as rows: which of the most frequent words a text has."""

from collections.abc import Mapping

import keras
import numpy as np

from keras_wd.cli.streams import Stream
from keras_wd.cli.usage_errors import UsageError

WORDS = 2000
_CHUNK = 1024  # texts


def are_texts(inputs: np.ndarray | Stream) -> bool:
    """Whether these are strings, one for each example."""
    return inputs.ndim == 1 and inputs.dtype.kind in "USO"


def refuse_words(name: str, words: int | None) -> None:
    """Refuse `--words` for data without texts."""
    if words is not None:
        raise UsageError(
            f"--words needs texts, and {name} has none. Received: "
            f"--words={words}"
        )


def vectorized(
    texts: Mapping[str, np.ndarray | Stream], words: int | None
) -> dict[str, np.ndarray | Stream]:
    """Rows of booleans by split, by Keras's `TextVectorization`.

    Args:
        texts: by split. The words are those of "train". Of a stream they are
            counted in one pass, and its rows are made as they are needed.
        words: how many are told apart, the most frequent ones; None for
            `WORDS`. One column besides stands for all others.

    Raises:
        UsageError: if the texts are empty.
    """
    layer = keras.layers.TextVectorization(
        max_tokens=(words or WORDS) + 1, output_mode="multi_hot"
    )
    for at in range(0, len(texts["train"]), _CHUNK):
        layer.update_state(list(texts["train"][at : at + _CHUNK]))
    layer.finalize_state()
    if layer.vocabulary_size() < 3:  # what all texts have
        raise UsageError("--dataset has no words in its training texts")

    def rows(some):
        return np.asarray(layer(list(some))).astype(bool)

    width = rows([""]).shape[-1]
    found = {}
    for split, some in texts.items():
        stream = some
        if not isinstance(some, Stream):
            stream = Stream(some.__getitem__, len(some), (), object)
        stream = stream.mapped(rows, (width,), bool)
        found[split] = stream if isinstance(some, Stream) else stream[:]
    return found
