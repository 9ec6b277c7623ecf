"""Images or texts with labels from TensorFlow Datasets, and our `digits`."""

import contextlib
import io
import os
import re
import struct
from collections.abc import Mapping

import numpy as np
from absl import logging

from keras_wd.cli import data_folders
from keras_wd.cli import downloads
from keras_wd.cli import texts
from keras_wd.cli.streams import Stream
from keras_wd.cli.streams import is_large
from keras_wd.cli.streams import one_by_one
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line
from keras_wd.cli.usage_errors import require
from keras_wd.errors import did_you_mean

SPLITS = ("train", "validation", "test")
_JPEG = b"\xff\xd8"  # how such a file begins


def read(
    name: str,
    data_dir: str | None,
    size: tuple[int, int] | None,
    words: int | None = None,
    stream: str = "false",
) -> tuple[dict[str, tuple[np.ndarray | Stream, np.ndarray]], int]:
    """The inputs and labels of every split, and the number of classes.

    Prepares the set first if need be.

    Args:
        name: of the set, such as `mnist` or `emnist/letters`.
        data_dir: where prepared sets live; None for TFDS's own choice.
        size: height and width the images get. Of images that differ in size
            the median for None.
        words: how many are told apart in texts; None for 2,000.
        stream: "true", "false" or "auto": whether examples are read as they
            are needed.

    Raises:
        UsageError: for a name that does not exist or a set that does not fit.
    """
    require("tensorflow_datasets")
    logging.set_verbosity(logging.ERROR)  # TFDS reports the usual as warnings
    builder = _find(name, data_dir)
    _check(name, builder.info)
    if stream == "true" and not builder.is_prepared():
        # Which has an index of its examples.
        builder = _find(name, data_dir, file_format="array_record")
    _prepare(name, builder)
    present = [s for s in SPLITS if s in builder.info.splits]
    if "train" not in present:
        raise UsageError(f"--dataset={name} has no training examples")
    image, label = builder.info.supervised_keys
    if _is_of_texts(builder.info):
        if size is not None:
            raise UsageError("--image_size needs images")
    elif size is None and None in builder.info.features[image].shape:
        size = _median_size(builder, image)
    read = _read
    if _is_streamed(builder, present, size, words, stream):
        read = _streamed
    found = {split: read(builder, split, size) for split in present}
    return found, builder.info.features[label].num_classes


def _find(name: str, data_dir: str | None, **arguments):
    import tensorflow_datasets as tfds

    base, *form = re.split("[/:]", name, maxsplit=1)
    if base == "digits":
        require("sklearn")
        from keras_wd.cli import digits  # noqa: F401  (registers itself)
    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
    try:
        return tfds.builder(name, data_dir=data_dir, **arguments)
    except OSError as error:
        raise _unusable_folder(data_dir, error) from error
    except Exception as error:
        raise _not_found(name, base, form) from error


def _not_found(name, base, form):
    import tensorflow_datasets as tfds

    known = ["digits", *tfds.list_builders(with_community_datasets=False)]
    if base in known and form:
        forms = tfds.builder_cls(base).builder_configs
        return UsageError(
            f"--dataset={name} is not a form or version of {base} that "
            f"TensorFlow Datasets knows{did_you_mean(form[0], forms)}"
        )
    if os.path.exists(name):
        return UsageError(
            f"--dataset={name} is not a data set of TensorFlow Datasets. For "
            f"what is in this folder, write --dataset=./{name}"
        )
    return UsageError(
        f"--dataset={name} is not a data set of TensorFlow Datasets. Choose "
        "digits, mnist, fashion_mnist, cifar10, cifar100, svhn_cropped or "
        f"another set of images or texts with labels{did_you_mean(name, known)}"
    )


def _check(name: str, info) -> None:
    """Refuse a set that is not images or texts with one label each."""
    import tensorflow_datasets as tfds

    keys = info.supervised_keys
    # Of some sets the input is a dictionary, or a feature inside of another.
    fits = len(keys or ()) == 2 and all(key in [*info.features] for key in keys)
    if fits:
        given, label = (info.features[key] for key in keys)
        fits = isinstance(label, tfds.features.ClassLabel) and (
            isinstance(given, tfds.features.Image) or _is_of_texts(info)
        )
    if not fits:
        raise UsageError(
            f"--dataset={name} does not pair an image or a text with a class "
            "label. A function of yours may return it in such pairs "
            "(--dataset=module:function)"
        )


def _is_of_texts(info):
    import tensorflow_datasets as tfds

    given = info.features[info.supervised_keys[0]]
    return isinstance(given, tfds.features.Text)


def _prepare(name: str, builder) -> None:
    import tensorflow_datasets as tfds

    if builder.is_prepared():
        return
    downloads.announce(name, builder)
    local = builder.name == "digits"
    quiet = contextlib.redirect_stdout(io.StringIO())
    if local:
        tfds.disable_progress_bar()
    try:
        with quiet if local else contextlib.nullcontext():
            builder.download_and_prepare()
    except OSError as error:
        if error.filename and str(builder.data_dir).startswith(
            str(error.filename)
        ):
            raise _unusable_folder(builder.data_dir, error) from error
        raise _not_prepared(name, builder, error) from error
    except Exception as error:
        raise _not_prepared(name, builder, error) from error
    finally:
        if local:
            tfds.enable_progress_bar()


def _not_prepared(name: str, builder, error: Exception) -> UsageError:
    text = first_line(error)
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and "instructions" in text:
        text = " ".join(str(error).split())
    return UsageError(
        f"--dataset={name} could not be downloaded or prepared: {text}"
    )


def _unusable_folder(data_dir: str | None, error: OSError) -> UsageError:
    return UsageError(
        f"--data_dir={data_dir} cannot be written to: "
        f"{error.strerror or first_line(error)}"
    )


def _is_streamed(builder, present, size, words, stream):
    """Whether examples are read as they are needed.

    Raises:
        UsageError: if they must be and cannot.
    """
    if stream == "false":
        return False
    shape = builder.info.features[builder.info.supervised_keys[0]].shape
    count = sum(builder.info.splits[split].num_examples for split in present)
    if stream == "auto":
        whole = (*size, shape[-1]) if size else shape
        if _is_of_texts(builder.info):
            whole = (words or texts.WORDS,)
        return is_large(count, whole) and _has_numbers(builder)
    if not _has_numbers(builder):
        raise UsageError(
            "--stream=true needs files of the format tfrecord or "
            f"array_record, and those in {builder.data_dir} are "
            f"{builder.info.file_format.value}. Name another --data_dir: the "
            "set is prepared there in one"
        )
    return True


def _has_numbers(builder):
    """Whether an example can be read by its number."""
    return _is_of_records(builder) or _has_index(builder)


def _is_of_records(builder):
    import tensorflow_datasets as tfds

    records = tfds.core.file_adapters.FileFormat.TFRECORD
    return builder.info.file_format == records


def _has_index(builder):
    try:
        builder.as_data_source(split="train")
    except NotImplementedError:
        return False
    return True


class _Records:
    """The examples in TFRecord files, whose places are found when it is made.

    A record is its length in 8 bytes, a check of it in 4, the example, and a
    check of that in 4.
    """

    def __init__(self, builder, split, decoders: Mapping | None = None):
        self._features = builder.info.features
        self._decoders = decoders
        self._paths = builder.info.splits[split].filepaths
        places = []
        for number, path in enumerate(self._paths):
            end, at = path.stat().length, 0
            with path.open("rb") as file:
                while at < end:
                    file.seek(at)
                    (length,) = struct.unpack("<Q", file.read(8))
                    places.append((number, at + 12, length))
                    at += length + 16
        self._places = np.array(places, "int64").reshape(-1, 3)

    def __len__(self):
        return len(self._places)

    def __getitem__(self, place):
        number, start, length = self._places[place].tolist()
        with self._paths[number].open("rb") as file:
            file.seek(start)
            record = file.read(length)
        return self._features.deserialize_example_np(
            record, decoders=self._decoders
        )


def _source(builder, split, decoders=None):
    """The examples of a split, by their numbers."""
    if _is_of_records(builder):
        return _Records(builder, split, decoders)
    return builder.as_data_source(split=split, decoders=decoders)


def _streamed(builder, split: str, size: tuple[int, int] | None):
    import tensorflow_datasets as tfds

    given, label = builder.info.supervised_keys
    feature = builder.info.features[given]
    is_of_texts = _is_of_texts(builder.info)
    skipped = None if is_of_texts else {given: tfds.decode.SkipDecoding()}
    examples = _source(builder, split, skipped)
    shape = feature.shape if size is None else (*size, feature.shape[-1])

    def read(place):
        found = examples[place][given]
        if is_of_texts:
            return found
        # Of a JPEG, TFDS's other decoder gives other pixels than tf.data.
        is_jpeg = found.startswith(_JPEG)
        decode = (
            feature.decode_example if is_jpeg else feature.decode_example_np
        )
        found = np.asarray(decode(found))
        return found if size is None else data_folders.resized(found, size)

    labels = np.fromiter(
        (examples[place][label] for place in range(len(examples))), "int32"
    )
    dtype = object if is_of_texts else feature.np_dtype
    return Stream(one_by_one(read, dtype), len(labels), shape, dtype), labels


def _median_size(builder, image) -> tuple[int, int]:
    import tensorflow_datasets as tfds

    if _has_index(builder):
        examples = builder.as_data_source(split="train")
    else:
        examples = tfds.as_numpy(builder.as_dataset(split="train"))
    return data_folders.common_size(
        [example[image].shape for example in examples]
    )


def _read(builder, split: str, size: tuple[int, int] | None):
    import tensorflow_datasets as tfds

    if _has_index(builder):  # tf.data does not read such files.
        images, labels = _streamed(builder, split, size)
        return images[:], labels
    arguments = {
        "split": split,
        "as_supervised": True,
        # The order of the files, which a stream has as well.
        "read_config": tfds.ReadConfig(interleave_cycle_length=1),
    }
    if size is None:
        images, labels = tfds.as_numpy(
            builder.as_dataset(batch_size=-1, **arguments)
        )
        return images, labels.astype("int32")
    pairs = tfds.as_numpy(builder.as_dataset(**arguments))
    images, labels = zip(
        *((data_folders.resized(image, size), label) for image, label in pairs),
        strict=True,
    )
    return np.stack(images), np.array(labels, "int32")
