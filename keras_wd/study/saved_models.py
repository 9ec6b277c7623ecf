"""Models that users saved."""

import os
import zipfile

import keras

from keras_wd.study.errors import UsageError
from keras_wd.study.errors import first_line


def load(path: str, name: str) -> keras.Model:
    """The model of a file, not compiled.

    Args:
        path: of the file.
        name: how the user gave it, for messages.

    Raises:
        UsageError: if there is none, or it cannot be loaded.
    """
    if not os.path.isfile(path):
        raise UsageError(f"{name} does not exist")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        reason = first_line(error)
        if not zipfile.is_zipfile(path):
            # Keras says that there is no file.
            reason = "it is cut short, or no .keras file"
        raise UsageError(f"{name} cannot be loaded: {reason}") from error
