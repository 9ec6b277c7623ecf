"""The `digits` data set: 1797 handwritten digits of 8 x 8 pixels.

A TensorFlow Datasets builder over the images that scikit-learn carries
within itself, so that nothing is downloaded. Importing this module makes
`tfds.load("digits")` work.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

# Of each class, taken in the order of the file, image k goes to the split
# SPLIT_OF[k % 10]: 70 % training, 10 % validation, 20 % test in every class.
SPLIT_OF = (
    "test",
    "train",
    "train",
    "validation",
    "train",
    "test",
    "train",
    "train",
    "train",
    "train",
)


class Digits(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits, 8 x 8 pixels with 17 grey levels, 10 classes.

    Splits: train 1253, validation 180, test 364; fixed, and stratified by
    class. Features: `image` (8, 8, 1) uint8 from 0 to 16, `label`, and the
    `index` of the image in scikit-learn's array.

    Source: Alpaydin and Kaynak, 1998, Optical Recognition of Handwritten
    Digits (UCI), the test part, as in `sklearn.datasets.load_digits`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(8, 8, 1), dtype=np.uint8
                    ),
                    "label": tfds.features.ClassLabel(num_classes=10),
                    "index": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation="E. Alpaydin and C. Kaynak, 1998, "
            "Optical Recognition of Handwritten Digits, UCI",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict:
        return {
            split: self._generate_examples(split)
            for split in ("train", "validation", "test")
        }

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        images = images.astype(np.uint8).reshape(-1, 8, 8, 1)
        for index in indices_of(split, labels):
            yield (
                int(index),
                {
                    "image": images[index],
                    "label": int(labels[index]),
                    "index": int(index),
                },
            )


def indices_of(split: str, labels: np.ndarray) -> np.ndarray:
    """Positions of the images of a split, given the label of each image."""
    rank_in_class = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank_in_class[members] = np.arange(len(members))
    return np.flatnonzero(np.array(SPLIT_OF)[rank_in_class % 10] == split)
