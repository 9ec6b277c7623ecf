"""Data sets, ready to train on.

Sets of TensorFlow Datasets and our own `digits` (`keras_wd.cli.tfds_sets`)
and what users have themselves (`keras_wd.cli.own_data`). A set is held in
memory as it was stored, or read as it is needed (`keras_wd.cli.streams`);
batches are drawn and standardised in `keras_wd.cli.batches`.
"""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from keras_wd.cli import encoding
from keras_wd.cli import own_data
from keras_wd.cli import texts
from keras_wd.cli import tfds_sets
from keras_wd.cli.rate_schedules import numbers
from keras_wd.cli.streams import Stream
from keras_wd.cli.usage_errors import UsageError

# The flags that say what data is loaded.
SOURCE = (
    *("dataset", "data_dir", "target", "task", "image_size", "words"),
    "stream",
)
CARVED = 0.1  # of the training images, for a split that a set does not have


@dataclasses.dataclass(frozen=True)
class Split:
    """Inputs as stored, and as many targets.

    Inputs are images `(n, height, width, channels)` or rows `(n, columns)`;
    targets are labels, or numbers to regress.
    """

    inputs: np.ndarray | Stream
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: np.ndarray | slice) -> "Split":
        """The examples at these positions, read."""
        return Split(self.inputs[indices], self.targets[indices])

    def subset(self, indices: np.ndarray) -> "Split":
        """A split of the examples at these positions."""
        if isinstance(self.inputs, Stream):
            inputs = self.inputs.subset(indices)
            return Split(inputs, self.targets[indices])
        return self.take(indices)

    def joined(self, other: "Split") -> "Split":
        """A split of these and then of other examples."""
        targets = np.concatenate([self.targets, other.targets])
        if isinstance(self.inputs, Stream):
            return Split(self.inputs.joined(other.inputs), targets)
        return Split(np.concatenate([self.inputs, other.inputs]), targets)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Three splits of a set and the statistics of its training examples.

    Attributes:
        name: as given.
        train, validation, test: the splits.
        classes: how many labels there are; 0 for regression.
        mean, deviation: of the inputs of `train`, one number per channel or
            column.
        carved: names of the splits that were cut off `train`.
        target_mean, target_deviation: of what is regressed; 0 and 1 for
            labels.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    mean: np.ndarray
    deviation: np.ndarray
    carved: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_deviation: float = 1.0

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.train.inputs.shape[1:]

    @property
    def is_of_images(self) -> bool:
        return len(self.input_shape) == 3

    @property
    def is_colour(self) -> bool:
        return self.is_of_images and self.input_shape[-1] == 3

    def standardise(self, inputs: np.ndarray) -> np.ndarray:
        """`(x - mean) / deviation` per channel or column, in float32."""
        return (inputs.astype("float32") - self.mean) / self.deviation

    def standardise_targets(self, targets: np.ndarray) -> np.ndarray:
        """Labels as they are; numbers with mean 0 and deviation 1."""
        if self.classes:
            return targets
        return (targets - self.target_mean) / self.target_deviation


def title(dataset: str) -> str:
    """A name for a set, fit for a folder."""
    if own_data.is_own(dataset):
        dataset = os.path.basename(dataset)
    return dataset.replace("/", "_").replace(":", "_")


def for_run(settings: Mapping, loaded: DataSet | None = None) -> DataSet:
    """The data of a run, from its flags.

    Args:
        settings: of the run.
        loaded: the set, if it was loaded before.

    Raises:
        UsageError: for data that does not exist or does not fit.
    """
    try:
        data = loaded or load(**{name: settings[name] for name in SOURCE})
    except MemoryError as error:
        raise UsageError(
            f"--dataset={settings['dataset']} does not fit into memory. Use "
            "--stream=true, which reads examples as they are needed"
        ) from error
    if settings["augment"] == "true" and not data.is_of_images:
        raise UsageError("--augment=true needs images")
    data = few(data, settings["train_examples"], settings["seed"])
    if settings["batch_size"] > len(data.train):
        raise UsageError(
            f"--batch_size must be at most {len(data.train)}, the training "
            f"examples of {data.name}. Received: "
            f"--batch_size={settings['batch_size']}"
        )
    if settings["standardise"]:
        return data
    return dataclasses.replace(
        data,
        mean=np.zeros_like(data.mean),
        deviation=np.ones_like(data.deviation),
        target_mean=0.0,
        target_deviation=1.0,
    )


def load(
    dataset: str,
    data_dir: str | None = None,
    target: str | None = None,
    task: str = "auto",
    image_size: str | None = None,
    words: int | None = None,
    stream: str = "false",
) -> DataSet:
    """Prepare a set if need be and read it.

    Where a set has no test split, its validation split is the test split;
    splits still missing are cut off the training images, a fixed tenth each
    that does not depend on any seed.

    Args:
        dataset: `digits`, a TensorFlow Datasets name, such as `mnist`,
            `cifar10`, `emnist/letters`, or what `own_data.read` takes.
        data_dir: where prepared sets live; by default TFDS's own choice
            (`TFDS_DATA_DIR`, or `~/tensorflow_datasets`).
        target: the column of a table to predict.
        task: "classification", "regression", or "auto": classification of
            words and of at most 20 different whole numbers.
        image_size: "height,width" or one number, which images get.
        words: how many are told apart in texts; None for 2,000.
        stream: "true" to read examples as they are needed, "false" to hold
            them in memory, "auto" for what the memory allows.

    Raises:
        UsageError: for a name that does not exist or a set that does not fit.
    """
    name = dataset
    size = _size(image_size)
    if own_data.is_own(name):
        pairs = own_data.read(name, target, size, words, stream)
        return _own(name, pairs, task, words)
    if target is not None or task == "regression":
        raise UsageError(
            "--target and --task=regression are for data of your own. "
            f"Received: --dataset={name}"
        )
    pairs, classes = tfds_sets.read(name, data_dir, size, words, stream)
    inputs = {split: x for split, (x, _) in pairs.items()}
    if texts.are_texts(inputs["train"]):
        inputs = texts.vectorized(inputs, words)
    else:
        texts.refuse_words(name, words)
    splits = {split: Split(inputs[split], pairs[split][1]) for split in pairs}
    return _complete(name, splits, classes)


def _complete(name, splits, classes):
    """A set with the splits that are missing cut off the training part."""
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    carved = tuple(
        split for split in ("test", "validation") if split not in splits
    )
    for split in carved:
        splits["train"], splits[split] = carve(splits["train"])
    mean, deviation = statistics(splits["train"].inputs)
    data = DataSet(
        name=name,
        **splits,
        classes=classes,
        mean=mean,
        deviation=deviation,
        carved=carved,
    )
    if classes:
        return data
    targets = splits["train"].targets
    return dataclasses.replace(
        data,
        target_mean=np.float32(targets.mean(dtype="float64")),
        target_deviation=np.float32(targets.std(dtype="float64") or 1.0),
    )


def _own(name, pairs, task, words):
    """A set from the splits of a source."""
    inputs, targets, classes = encoding.encoded(name, pairs, task, words)
    splits = {s: Split(inputs[s], targets[s]) for s in inputs}
    return _complete(title(name), splits, classes)


def _size(text):
    """Height and width of `--image_size`."""
    if text is None:
        return None
    sides = numbers("image_size", text, int, 1)
    if len(sides) > 2:
        raise UsageError(
            "--image_size must be a height and a width, or one number. "
            f"Received: --image_size={text}"
        )
    return sides[0], sides[-1]


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
            f"training examples of {data.name}. Received: "
            f"--train_examples={count}"
        )
    # The second number keeps apart from the order of the epochs.
    order = np.random.default_rng((seed, 0, 2)).permutation(len(data.train))
    train = data.train.subset(np.sort(order[:count]))
    rest = data.train.subset(np.sort(order[count:]))
    mean, deviation = statistics(train.inputs)
    return dataclasses.replace(
        data,
        train=train,
        test=data.test.joined(rest),
        mean=mean,
        deviation=deviation,
    )


def carve(split: Split) -> tuple[Split, Split]:
    """Cut a tenth off a split: a choice that is the same in every run."""
    order = np.random.default_rng(0).permutation(len(split))
    count = max(1, round(CARVED * len(split)))
    rest, cut = np.sort(order[count:]), np.sort(order[:count])
    return split.subset(rest), split.subset(cut)


def statistics(
    images: np.ndarray | Stream,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the pixels, one number per channel.

    A channel that never varies has the deviation 1, so that it standardises
    to zero. The words of a text, there or not, stay 1 and 0.
    """
    if images.dtype == bool:
        columns = images.shape[-1]
        mean, deviation = np.zeros(columns), np.ones(columns)
    elif isinstance(images, Stream):
        mean, deviation = images.statistics()
    else:
        pixels = images.reshape(-1, images.shape[-1])
        mean = pixels.mean(axis=0, dtype="float64")
        deviation = pixels.std(axis=0, dtype="float64")
    deviation[deviation == 0] = 1
    return mean.astype("float32"), deviation.astype("float32")
