"""Images and texts in files, in a folder for each class."""

import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from keras_wd.cli import texts
from keras_wd.cli.streams import Stream
from keras_wd.cli.streams import is_large
from keras_wd.cli.streams import is_streamed
from keras_wd.cli.streams import one_by_one
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line
from keras_wd.cli.usage_errors import require

_TEXTS = (".txt",)
_IMAGES = ".png .jpg .jpeg .bmp .gif .webp .tif .tiff".split()


def read(
    name: str,
    splits: Mapping[str, str],
    size: tuple[int, int] | None,
    words: int | None,
    stream: str,
) -> dict[str, tuple[np.ndarray | Stream, np.ndarray]]:
    """The images or texts of a folder, and the names of their folders.

    Args:
        name: of the folder.
        splits: of the names that folders of them may have.
        size: height and width of images; None for the one they have, or the
            median of different ones.
        words: how many are told apart in texts; None for 2,000.
        stream: "true", "false" or "auto": whether examples are read as they
            are needed.

    Raises:
        UsageError: if it is not such a folder, or a file cannot be read.
    """
    inside = [p for p in sorted(pathlib.Path(name).iterdir()) if p.is_dir()]
    parts = {p.name.lower(): p for p in inside if p.name.lower() in splits}
    if "train" not in parts:
        parts = {"train": pathlib.Path(name)}
    files = {}
    for split, folder in parts.items():
        files[splits[split]] = [
            (path, kind.name)
            for kind in sorted(folder.iterdir())
            if kind.is_dir() and not _is_hidden(kind)
            for path in _examples(name, kind)
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
        read_one, whole, dtype = _text, (), np.dtype(object)
        is_over = is_large(len(every), (words or texts.WORDS,))
    else:
        read_one, whole = _reader(every, size)
        dtype = np.dtype("uint8")
        is_over = is_large(len(every), whole)
    found = {}
    for split, pairs in files.items():
        if not pairs:
            continue
        paths, kinds = zip(*pairs, strict=True)
        inputs = Stream(
            _by_place(read_one, paths, dtype),
            len(paths),
            whole,
            dtype,
        )
        if not is_streamed(stream, is_over):
            inputs = inputs[:]
        found[split] = inputs, np.array(kinds)
    return found


def _by_place(read_one, paths, dtype):
    return one_by_one(lambda at: read_one(paths[at]), dtype)


def _examples(name, folder):
    """The images or texts of a class.

    Raises:
        UsageError: if there are none.
    """
    inside = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_hidden(path)
    ]
    found = [p for p in inside if p.suffix.lower() in (*_IMAGES, *_TEXTS)]
    if len(found) < len(inside):
        kept = set(found)
        other = next(path for path in inside if path not in kept)
        count = len(inside) - len(found)
        which = other.name if count == 1 else f"{count}, such as {other.name}"
        print(
            f"{name}: left out of {folder.name}, not ending in "
            f"{', '.join((*_IMAGES, *_TEXTS))}: {which}",
            flush=True,
        )
    if not found:
        raise UsageError(
            f"--dataset={name} must have a folder for each class with its "
            f"images or .txt files. {folder} has none"
        )
    return found


def _is_hidden(path):
    return path.name.startswith(".")


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
            if image.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel. Convert it to 8")
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
            f"--dataset: {path} cannot be read as a text in UTF-8: "
            f"{first_line(error)}"
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
