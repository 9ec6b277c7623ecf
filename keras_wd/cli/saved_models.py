"""Models that users saved."""

import os
import warnings
import zipfile

import keras

from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line


def check(path: str, name: str) -> None:
    """Refuse what is no `.keras` file.

    Args:
        path: of the file.
        name: how the user gave it, for messages.

    Raises:
        UsageError: if there is none, or it is another kind of file.
    """
    if os.path.isdir(path):
        raise UsageError(f"{name} is a folder, and must be a .keras file")
    if not os.path.isfile(path):
        raise UsageError(f"{name} does not exist")
    if not zipfile.is_zipfile(path):
        raise UsageError(
            f"{name} cannot be loaded: it is cut short, or no .keras file"
        )


def load(path: str, name: str, compile: bool = False) -> keras.Model:
    """The model of a file.

    Args:
        path: of the file.
        name: how the user gave it, for messages.
        compile: as it was compiled when it was saved, if it was.

    Raises:
        UsageError: if there is none, or it cannot be loaded.
    """
    check(path, name)
    try:
        with warnings.catch_warnings():
            # Its optimizer is not used.
            warnings.filterwarnings("ignore", "Skipping variable loading")
            return keras.saving.load_model(path, compile=compile)
    except Exception as error:
        raise UsageError(
            f"{name} cannot be loaded: {first_line(error)}"
        ) from error
