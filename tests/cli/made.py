"""Tiny sets of TensorFlow Datasets, made here."""

import numpy as np
import tensorflow_datasets as tfds


class _Made(tfds.core.GeneratorBasedBuilder):
    """A tiny set made here; a subclass says of what."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = {"train": 40}
    KEYS = ("image", "label")
    IMAGE = tfds.features.Image(shape=(6, 6, 3))
    LABEL = tfds.features.ClassLabel(num_classes=4)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"image": self.IMAGE, "label": self.LABEL}
            ),
            supervised_keys=self.KEYS,
        )

    def _split_generators(self, dl_manager):
        return {
            name: self._generate_examples(offset, count)
            for offset, (name, count) in enumerate(self.SPLITS.items())
        }

    def _generate_examples(self, offset, count):
        rng = np.random.default_rng(offset)
        for index in range(count):
            image = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            image[..., 2] = 7
            yield index, {"image": image, "label": index % 4}


class MadeColour(_Made):
    SPLITS = {"train": 40, "test": 8}


class MadeTrainOnly(_Made):
    IMAGE = tfds.features.Image(shape=(6, 6, 3), encoding_format="jpeg")


class MadeWithValidation(_Made):
    SPLITS = {"train": 40, "validation": 8}


class MadeOfAllSizes(_Made):
    IMAGE = tfds.features.Image(shape=(None, None, 3))


class MadeToRegress(_Made):
    LABEL = tfds.features.Scalar(dtype=np.int64)


class MadeOfADictionary(_Made):
    KEYS = ({"image": "image"}, "label")


class MadeOfTexts(_Made):
    SPLITS = {"train": 40, "test": 8}
    IMAGE = tfds.features.Text()
    LABEL = tfds.features.ClassLabel(num_classes=2)

    def _generate_examples(self, offset, count):
        for index in range(count):
            label = index % 2
            text = f"A {('bad', 'good')[label]} film, no. {index}!"
            yield index, {"image": text, "label": label}


class MadePairsOfTexts(MadeOfTexts):
    LABEL = tfds.features.Text()

    def _generate_examples(self, offset, count):
        for index in range(count):
            yield index, {"image": "one", "label": "another"}
