"""Data of the user's own: arrays, tables, folders, functions.

Each reader returns the splits a source has, as pairs of inputs and targets
that are not yet encoded.
"""

import os
import zipfile

import numpy as np

from keras_wd.cli import data_folders
from keras_wd.cli import data_functions
from keras_wd.cli import data_tables
from keras_wd.cli import texts
from keras_wd.cli.streams import Stream
from keras_wd.cli.streams import is_large
from keras_wd.cli.streams import is_streamed
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line

Pair = tuple[np.ndarray | Stream, np.ndarray]
_FILES = (".npz", ".npy", ".csv")
# What a split may be called in a file, a folder or a dictionary.
NAMES = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


def is_own(name: str) -> bool:
    """Whether `--dataset` names data of the user's, not a set by its name."""
    return (
        name.lower().endswith(_FILES)
        or name.startswith((".", "/", "~"))
        or name.endswith("/")
        or data_functions.NAME.fullmatch(name) is not None
    )


def absolute(name: str) -> str:
    """The name as it is found from any folder."""
    if not is_own(name) or data_functions.NAME.fullmatch(name):
        return name
    return os.path.abspath(os.path.expanduser(name))


def read(
    name: str,
    target: str | None,
    image_size: tuple[int, int] | None,
    words: int | None = None,
    stream: str = "false",
) -> dict[str, Pair]:
    """The splits of a source: "train", and "validation", "test" if there.

    Inputs are numbers, or texts.

    Args:
        name: of a file, a folder or a function.
        target: the column of a table that is to be predicted.
        image_size: height and width of images in a folder; None for the one
            they have, or the median of different ones.
        words: how many are told apart in texts; None for 2,000.
        stream: "true", "false" or "auto": whether examples are read as they
            are needed.

    Raises:
        UsageError: if there is no such source, or it is not understood.
    """
    ending = os.path.splitext(name)[1].lower()
    is_file = os.path.isfile(name) and ending not in _FILES
    if target is not None and ending not in (".csv", ".npy") and not is_file:
        raise UsageError(
            f"--target is the column of a table. Received: --target={target} "
            f"with --dataset={name}"
        )
    if image_size is not None and (
        ending in _FILES or data_functions.NAME.fullmatch(name)
    ):
        raise UsageError(
            "--image_size is for images in files of their own, and for sets "
            f"of TensorFlow Datasets. Received: --dataset={name}"
        )
    if data_functions.NAME.fullmatch(name):
        pairs = data_functions.read(name, NAMES)
        return {
            split: (_kept(inputs, words, stream), targets)
            for split, (inputs, targets) in pairs.items()
        }
    if not os.path.exists(name):
        raise UsageError(f"--dataset={name} does not exist")
    if os.path.isdir(name):
        return data_folders.read(name, NAMES, image_size, words, stream)
    if ending == ".npz":
        return _arrays(name, words, stream)
    if ending == ".npy":
        rows, targets = _array(name, target)
        return {"train": (_kept(rows, words, stream), targets)}
    if ending == ".csv":
        rows, targets = data_tables.read(name, target)
        return {"train": (_kept(rows, words, stream), targets)}
    raise UsageError(
        f"--dataset={name} must be a folder of images or a file that ends in "
        f"{', '.join(_FILES)}"
    )


def _kept(inputs, words, stream):
    """Inputs in memory, unless they are to be streamed."""
    if texts.are_texts(inputs):
        is_over = is_large(len(inputs), (words or texts.WORDS,))
    else:
        bytes_each = (*inputs.shape[1:], inputs.dtype.itemsize)
        is_over = is_large(len(inputs), bytes_each)
    if not is_streamed(stream, is_over):
        return inputs[:]
    if isinstance(inputs, Stream):
        return inputs
    return Stream(
        inputs.__getitem__, len(inputs), inputs.shape[1:], inputs.dtype
    )


def _load(name, mode=None):
    try:
        # NumPy leaves it open if it is cut short.
        if name.lower().endswith(".npz") and _is_cut(name):
            raise ValueError("it is cut short")
        return np.load(name, mode, allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:  # damaged in one of many ways
        raise UsageError(
            f"--dataset={name} cannot be read: {first_line(error)}"
        ) from error


def _is_cut(name):
    with open(name, "rb") as file:
        return file.read(2) == b"PK" and not zipfile.is_zipfile(file)


def _arrays(name, words, stream):
    file = _load(name)
    if isinstance(file, np.ndarray):
        raise UsageError(
            f"--dataset={name} holds one array, as a .npy file does; its name "
            "must end in .npy"
        )
    with file:
        keys = {"train": ("x", "y")} if {"x", "y"} <= set(file) else {}
        for suffix, split in NAMES.items():
            pair = f"x_{suffix}", f"y_{suffix}"
            if set(pair) <= set(file):
                keys[split] = pair
        if "train" not in keys:
            raise UsageError(
                f"--dataset={name} must have the arrays x and y, or x_train, "
                "y_train and others such as x_test, y_test. It has: "
                f"{', '.join(file) or 'none'}"
            )
        try:
            return {
                split: (_member(file, name, x, words, stream), file[y])
                for split, (x, y) in keys.items()
            }
        except (MemoryError, UsageError):
            raise
        except Exception as error:  # damaged in one of many ways
            raise UsageError(
                f"--dataset={name} cannot be read: {first_line(error)}"
            ) from error


def _member(file, name, key, words, stream):
    """An array of an .npz, in memory or streamed."""
    member = file.zip.getinfo(f"{key}.npy")
    if member.compress_type == zipfile.ZIP_STORED:
        kept = _kept(_mapped(name, member), words, stream)
        if isinstance(kept, Stream):
            return kept
    elif stream == "true":
        raise UsageError(
            f"--stream=true cannot read parts of {name}, which is compressed. "
            "Write it with numpy.savez, not numpy.savez_compressed"
        )
    return file[key]


def _mapped(name, member):
    """An array that stands in a zip file as it is, not read yet."""
    with open(name, "rb") as raw:
        raw.seek(member.header_offset + 26)
        raw.seek(sum(np.frombuffer(raw.read(4), "<u2").tolist()), os.SEEK_CUR)
        version = np.lib.format.read_magic(raw)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_by_columns, dtype = header(raw)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects")
        order = "F" if is_by_columns else "C"
        return np.memmap(raw, dtype, "r", raw.tell(), shape, order)


def _array(name, target):
    """The rows of an array, of which the file stays open, and a column."""
    array = _load(name, "r")
    if array.ndim != 2 or array.shape[1] < 2:
        raise UsageError(
            f"--dataset={name} must be a table: an array of rows and columns. "
            f"It has the shape {array.shape}"
        )
    columns = array.shape[1]
    try:
        number = range(columns)[int(target)]
    except (TypeError, ValueError, IndexError) as error:
        raise UsageError(
            "--target must be the number of the column to predict, from 0 to "
            f"{columns - 1} (-1 is the last). Received: --target={target}"
        ) from error
    rest = np.delete(np.arange(columns), number)
    rows = Stream(
        lambda at: array[at][:, rest], len(array), rest.shape, array.dtype
    )
    return rows, np.array(array[:, number])
