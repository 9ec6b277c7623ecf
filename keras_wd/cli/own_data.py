"""Data of the user's own: arrays, tables, folders of images, functions.

Each reader returns the splits a source has, as pairs of inputs and targets
that are not yet encoded.
"""

import os
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from keras_wd.cli import data_functions
from keras_wd.cli import data_tables
from keras_wd.cli import texts
from keras_wd.cli.streams import Stream
from keras_wd.cli.streams import is_large
from keras_wd.cli.streams import one_by_one
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line
from keras_wd.cli.usage_errors import require

Pair = tuple[np.ndarray | Stream, np.ndarray]
_FILES = (".npz", ".npy", ".csv")
_TEXTS = (".txt",)
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
# What a split may be called in a file, a folder or a dictionary.
_NAMES = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


def is_own(name: str) -> bool:
    """Whether `--dataset` names data of the user's, not a set by its name."""
    return (
        name.endswith(_FILES)
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
    is_table = name.endswith((".csv", ".npy"))
    if target is not None and not is_table:
        raise UsageError(
            f"--target is the column of a table. Received: --target={target} "
            f"with --dataset={name}"
        )
    if image_size is not None and (
        name.endswith(_FILES) or data_functions.NAME.fullmatch(name)
    ):
        raise UsageError(
            "--image_size is for images in files of their own, and for sets "
            f"of TensorFlow Datasets. Received: --dataset={name}"
        )
    if data_functions.NAME.fullmatch(name):
        pairs = data_functions.read(name, _NAMES)
        return {
            split: (_kept(inputs, words, stream), targets)
            for split, (inputs, targets) in pairs.items()
        }
    if not os.path.exists(name):
        raise UsageError(f"--dataset={name} does not exist")
    if os.path.isdir(name):
        return _folder(name, image_size, words, stream)
    if name.endswith(".npz"):
        return _arrays(name, words, stream)
    if name.endswith(".npy"):
        rows, targets = _array(name, target)
        return {"train": (_kept(rows, words, stream), targets)}
    if name.endswith(".csv"):
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
    if not _is_streamed(stream, is_over):
        return inputs[:]
    if isinstance(inputs, Stream):
        return inputs
    return Stream(
        inputs.__getitem__, len(inputs), inputs.shape[1:], inputs.dtype
    )


def _is_streamed(stream, is_over):
    return stream == "true" or (stream == "auto" and is_over)


def _load(name, mode=None):
    try:
        return np.load(name, mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(
            f"--dataset={name} cannot be read: {first_line(error)}"
        ) from error


def _arrays(name, words, stream):
    file = _load(name)
    if isinstance(file, np.ndarray):
        raise UsageError(
            f"--dataset={name} holds one array, as a .npy file does; its name "
            "must end in .npy"
        )
    with file:
        keys = {"train": ("x", "y")} if {"x", "y"} <= set(file) else {}
        for suffix, split in _NAMES.items():
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
            f"{columns - 1}. Received: --target={target}"
        ) from error
    rest = np.delete(np.arange(columns), number)
    rows = Stream(
        lambda at: array[at][:, rest], len(array), rest.shape, array.dtype
    )
    return rows, np.array(array[:, number])


def _folder(name, size, words, stream):
    inside = [p for p in sorted(pathlib.Path(name).iterdir()) if p.is_dir()]
    splits = {p.name.lower(): p for p in inside if p.name.lower() in _NAMES}
    if "train" not in splits:
        splits = {"train": pathlib.Path(name)}
    files = {}
    for split, folder in splits.items():
        files[_NAMES[split]] = [
            (path, kind.name)
            for kind in sorted(folder.iterdir())
            if kind.is_dir()
            for path in sorted(kind.rglob("*"))
            if path.suffix.lower() in (*_IMAGES, *_TEXTS)
        ]
    if len({kind for _, kind in files["train"]}) < 2:
        raise UsageError(
            f"--dataset={name} must have a folder for each class with its "
            "images or .txt files, or such folders in train/ and others. "
            f"Found: {', '.join(p.name for p in inside) or 'no folder'}"
        )
    every = {path for found in files.values() for path, _ in found}
    written = {path for path in every if path.suffix.lower() in _TEXTS}
    if written and written != every:
        raise UsageError(
            f"--dataset={name} must have images or .txt files, not both"
        )
    if written:
        read, whole, dtype = _text, (), object
        is_over = is_large(len(every), (words or texts.WORDS,))
    else:
        read, whole = _reader(every, size)
        dtype = "uint8"
        is_over = is_large(len(every), whole)
    found = {}
    for split, pairs in files.items():
        if not pairs:
            continue
        paths, kinds = zip(*pairs, strict=True)
        inputs = Stream(
            one_by_one(lambda at, paths=paths: read(paths[at]), dtype),
            len(paths),
            whole,
            dtype,
        )
        if not _is_streamed(stream, is_over):
            inputs = inputs[:]
        found[split] = inputs, np.array(kinds)
    return found


def _reader(paths, size):
    """What reads an image, and the shape it gives to all of them."""
    require("PIL")
    shapes = [_shape(path) for path in paths]
    is_grey = all(len(shape) == 2 for shape in shapes)
    size = size or common_size(shapes)
    return (
        lambda path: resized(_channels(_picture(path), is_grey), size),
        (*size, 1 if is_grey else 3),
    )


def _shape(path):
    from PIL import Image

    try:
        with Image.open(path) as image:
            shape = image.height, image.width
            return shape if image.mode in ("1", "L") else (*shape, 3)
    except MemoryError:
        raise
    except Exception as error:  # damaged in one of many ways
        raise _unreadable(path, error) from error


def _picture(path):
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(
                image.convert("L" if image.mode in ("1", "L") else "RGB")
            )
    except MemoryError:
        raise
    except Exception as error:  # damaged in one of many ways
        raise _unreadable(path, error) from error


def _unreadable(path, error):
    return UsageError(
        f"--dataset: {path} cannot be read as an image: {first_line(error)}"
    )


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--dataset: {path} cannot be read as a text: {first_line(error)}"
        ) from error


def _channels(picture, is_grey):
    if picture.ndim == 3:
        return picture
    return np.repeat(picture[..., None], 1 if is_grey else 3, axis=-1)


def common_size(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Height and width: of all, or the medians."""
    sizes = np.array([shape[:2] for shape in shapes])
    height, width = np.median(sizes, axis=0).astype(int)
    return int(height), int(width)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image `(height, width, channels)` of bytes in another size."""
    if image.shape[:2] == tuple(size):
        return image
    from PIL import Image

    height, width = size
    layers = [
        Image.fromarray(image[..., channel]).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        for channel in range(image.shape[-1])
    ]
    return np.stack([np.asarray(layer) for layer in layers], axis=-1)
