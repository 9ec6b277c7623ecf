"""Images or texts with labels from TensorFlow Datasets, and our `digits`."""

import contextlib
import io
import os
import re

import numpy as np
from absl import logging

from keras_wd.cli import own_data
from keras_wd.cli.errors import UsageError
from keras_wd.cli.errors import first_line
from keras_wd.cli.errors import require
from keras_wd.cli.streams import Stream
from keras_wd.cli.streams import is_large
from keras_wd.errors import did_you_mean

SPLITS = ("train", "validation", "test")


def read(
    name: str,
    data_dir: str | None,
    size: tuple[int, int] | None,
    stream: str = "false",
) -> tuple[dict[str, tuple[np.ndarray | Stream, np.ndarray]], int]:
    """The inputs and labels of every split, and the number of classes.

    Prepares the set first if need be.

    Args:
        name: of the set, such as `mnist` or `emnist/letters`.
        data_dir: where prepared sets live; None for TFDS's own choice.
        size: height and width the images get. Of images that differ in size
            the median for None.
        stream: "true", "false" or "auto": whether images are read as they
            are needed.

    Raises:
        UsageError: for a name that does not exist or a set that does not fit.
    """
    require("tensorflow_datasets")
    logging.set_verbosity(logging.ERROR)  # TFDS reports the usual as warnings
    builder = _find(name, data_dir)
    _check(name, builder.info)
    if stream == "true" and _is_of_texts(builder.info):
        raise UsageError("--stream=true needs images")
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
    if _is_streamed(builder, present, size, stream):
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
    return UsageError(
        f"--dataset={name} is not a data set of TensorFlow Datasets. Choose "
        "digits, mnist, fashion_mnist, cifar10, cifar100, svhn_cropped or "
        f"another set of images or texts with labels{did_you_mean(name, known)}"
    )


def _check(name: str, info) -> None:
    """Refuse a set that is not images or texts with one label each."""
    import tensorflow_datasets as tfds

    keys = info.supervised_keys
    fits = keys is not None and len(keys) == 2
    if fits:
        given, label = (info.features[key] for key in keys)
        fits = isinstance(label, tfds.features.ClassLabel) and (
            isinstance(given, tfds.features.Image) or _is_of_texts(info)
        )
    if not fits:
        raise UsageError(
            f"--dataset={name} does not pair an image or a text with a class "
            "label"
        )


def _is_of_texts(info):
    import tensorflow_datasets as tfds

    given = info.features[info.supervised_keys[0]]
    return isinstance(given, tfds.features.Text)


def _prepare(name: str, builder) -> None:
    import tensorflow_datasets as tfds

    if builder.is_prepared():
        return
    print(f"Preparing the data set {name} in {builder.data_dir}", flush=True)
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
        raise _not_prepared(name, error) from error
    except Exception as error:
        raise _not_prepared(name, error) from error
    finally:
        if local:
            tfds.enable_progress_bar()


def _not_prepared(name: str, error: Exception) -> UsageError:
    return UsageError(
        f"--dataset={name} could not be downloaded or prepared: "
        f"{first_line(error)}"
    )


def _unusable_folder(data_dir: str | None, error: OSError) -> UsageError:
    return UsageError(
        f"--data_dir={data_dir} cannot be written to: "
        f"{error.strerror or first_line(error)}"
    )


def _is_streamed(builder, present, size, stream):
    """Whether images are read as they are needed.

    Raises:
        UsageError: if they must be and cannot.
    """
    if stream == "false" or _is_of_texts(builder.info):
        return False
    image = builder.info.supervised_keys[0]
    shape = builder.info.features[image].shape
    count = sum(builder.info.splits[split].num_examples for split in present)
    if stream == "auto":
        whole = (*size, shape[-1]) if size else shape
        return is_large(count, whole) and _has_index(builder)
    if not _has_index(builder):
        raise UsageError(
            "--stream=true needs examples with an index, and "
            f"{builder.data_dir} has none. Name another --data_dir: the set "
            "is prepared there with one"
        )
    return True


def _has_index(builder):
    try:
        builder.as_data_source(split="train")
    except NotImplementedError:
        return False
    return True


def _streamed(builder, split: str, size: tuple[int, int] | None):
    import tensorflow_datasets as tfds

    image, label = builder.info.supervised_keys
    examples = builder.as_data_source(split=split)
    shape = builder.info.features[image].shape
    if size is not None:
        shape = (*size, shape[-1])

    def read(place):
        pixels = examples[place][image]
        return pixels if size is None else own_data.resized(pixels, size)

    labels = builder.as_data_source(
        split=split, decoders={image: tfds.decode.SkipDecoding()}
    )
    found = [labels[place][label] for place in range(len(labels))]
    return Stream(read, len(found), shape), np.array(found, "int32")


def _median_size(builder, image) -> tuple[int, int]:
    import tensorflow_datasets as tfds

    if _has_index(builder):
        examples = builder.as_data_source(split="train")
    else:
        examples = tfds.as_numpy(builder.as_dataset(split="train"))
    return own_data.common_size([example[image].shape for example in examples])


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
        *((own_data.resized(image, size), label) for image, label in pairs),
        strict=True,
    )
    return np.stack(images), np.array(labels, "int32")
