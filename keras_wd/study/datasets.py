"""Image-classification data sets by name, ready to train on.

Any TensorFlow Datasets set with one image size and one label per image, and
our own `digits`. A set is held in memory as it was stored; batches are drawn
and standardised in `keras_wd.study.batches`.
"""

import contextlib
import dataclasses
import io
import os
import re

import numpy as np
from absl import logging

from keras_wd.errors import did_you_mean
from keras_wd.study.errors import UsageError
from keras_wd.study.errors import first_line
from keras_wd.study.errors import require

CARVED = 0.1  # of the training images, for a split that a set does not have


@dataclasses.dataclass(frozen=True)
class Split:
    """Images `(n, height, width, channels)` as stored, and `n` labels."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """The images at these positions."""
        return Split(self.images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Three splits of a set and the statistics of its training images.

    Attributes:
        name: as given.
        train, validation, test: the splits.
        classes: how many labels there are.
        mean, deviation: of the pixels of `train`, one number per channel.
        carved: names of the splits that were cut off `train`.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    mean: np.ndarray
    deviation: np.ndarray
    carved: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.train.images.shape[1:]

    @property
    def is_colour(self) -> bool:
        return self.image_shape[-1] == 3

    def standardise(self, images: np.ndarray) -> np.ndarray:
        """`(pixel - mean) / deviation` per channel, in float32."""
        return (images.astype("float32") - self.mean) / self.deviation


def load(name: str, data_dir: str | None = None) -> DataSet:
    """Prepare a set if need be and read it.

    Where a set has no test split, its validation split is the test split;
    splits still missing are cut off the training images, a fixed tenth each
    that does not depend on any seed.

    Args:
        name: `digits` or a TensorFlow Datasets name, such as `mnist`,
            `cifar10`, `emnist/letters`.
        data_dir: where prepared sets live; by default TFDS's own choice
            (`TFDS_DATA_DIR`, or `~/tensorflow_datasets`).

    Raises:
        UsageError: for a name that does not exist or a set that does not fit.
    """
    logging.set_verbosity(logging.ERROR)  # TFDS reports the usual as warnings
    builder = _find(name, data_dir)
    _check(name, builder.info)
    _prepare(name, builder)
    splits = {
        split: _read(builder, split)
        for split in ("train", "validation", "test")
        if split in builder.info.splits
    }
    if "train" not in splits:
        raise UsageError(f"--dataset={name} has no training images")
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    carved = tuple(
        split for split in ("test", "validation") if split not in splits
    )
    for split in carved:
        splits["train"], splits[split] = carve(splits["train"])
    mean, deviation = statistics(splits["train"].images)
    label = builder.info.supervised_keys[1]
    return DataSet(
        name=name,
        **splits,
        classes=builder.info.features[label].num_classes,
        mean=mean,
        deviation=deviation,
        carved=carved,
    )


def few(data: DataSet, count: int | None, seed: int) -> DataSet:
    """The set with fewer training examples; the others become test examples.

    Args:
        data: the set.
        count: how many to train on; None for all.
        seed: decides which.

    Raises:
        UsageError: if there are not so many.
    """
    if count is None:
        return data
    if count > len(data.train):
        raise UsageError(
            f"--train_examples must be at most {len(data.train)}, the "
            f"training images of {data.name}. Received: "
            f"--train_examples={count}"
        )
    # The second number keeps apart from the order of the epochs.
    order = np.random.default_rng((seed, 0, 2)).permutation(len(data.train))
    train = data.train.take(np.sort(order[:count]))
    rest = data.train.take(np.sort(order[count:]))
    mean, deviation = statistics(train.images)
    return dataclasses.replace(
        data,
        train=train,
        test=Split(
            np.concatenate([data.test.images, rest.images]),
            np.concatenate([data.test.labels, rest.labels]),
        ),
        mean=mean,
        deviation=deviation,
    )


def carve(split: Split) -> tuple[Split, Split]:
    """Cut a tenth off a split: a choice that is the same in every run."""
    order = np.random.default_rng(0).permutation(len(split))
    count = max(1, round(CARVED * len(split)))
    return split.take(np.sort(order[count:])), split.take(
        np.sort(order[:count])
    )


def statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the pixels, one number per channel.

    A channel that never varies has the deviation 1, so that it standardises
    to zero.
    """
    pixels = images.reshape(-1, images.shape[-1])
    mean = pixels.mean(axis=0, dtype="float64")
    deviation = pixels.std(axis=0, dtype="float64")
    deviation[deviation == 0] = 1
    return mean.astype("float32"), deviation.astype("float32")


def _find(name: str, data_dir: str | None):
    import tensorflow_datasets as tfds

    base, *form = re.split("[/:]", name, maxsplit=1)
    if base == "digits":
        require("sklearn")
        from keras_wd.study import digits  # noqa: F401  (registers itself)
    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
    try:
        return tfds.builder(name, data_dir=data_dir)
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
        f"another image-classification set{did_you_mean(name, known)}"
    )


def _check(name: str, info) -> None:
    """Refuse a set that is not images of one size with one label each."""
    import tensorflow_datasets as tfds

    keys = info.supervised_keys
    fits = keys is not None and len(keys) == 2
    if fits:
        image, label = (info.features[key] for key in keys)
        fits = isinstance(image, tfds.features.Image) and isinstance(
            label, tfds.features.ClassLabel
        )
    if not fits:
        raise UsageError(
            f"--dataset={name} is not an image-classification set: it does "
            "not pair an image with a class label"
        )
    if None in image.shape:
        raise UsageError(
            f"--dataset={name} has images of different sizes; choose a set "
            "with one size, such as mnist, cifar10 or svhn_cropped"
        )


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


def _read(builder, split: str) -> Split:
    import tensorflow_datasets as tfds

    images, labels = tfds.as_numpy(
        builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
    )
    return Split(images, labels.astype("int32"))
