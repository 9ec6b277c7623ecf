"""The model of a run: a network of ours or the user's own file."""

from collections.abc import Mapping

import keras
from keras import layers

from keras_wd.study import networks
from keras_wd.study import saved_models
from keras_wd.study.datasets import DataSet
from keras_wd.study.errors import UsageError
from keras_wd.study.rates import numbers

LONG = 1000  # steps
_DENSE_LAYERS = (
    layers.InputLayer,
    layers.Flatten,
    layers.Reshape,
    layers.Dense,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.Softmax,
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.Dropout,
    layers.Rescaling,
    layers.Add,
)


def make(settings: Mapping, data: DataSet) -> keras.Model:
    """The model of `--model` for these images, not compiled.

    Raises:
        UsageError: if it cannot be loaded or does not fit the images.
    """
    name = settings["model"]
    if networks.is_file(name):
        return _load(name, data)
    design = networks.Design(
        batch_norm=settings["batch_norm"],
        bias=settings["bias"],
        hidden_units=tuple(
            numbers("hidden_units", settings["hidden_units"], int, 1)
        ),
        fixed_norm=settings["kernel_constraint"] == "fixed_norm",
    )
    return networks.build(name, data.image_shape, data.classes, design)


def _load(path, data):
    model = saved_models.load(path, f"--model={path}")
    for what, has, needs in (
        ("take images of", model.input_shape, (None, *data.image_shape)),
        (
            "give one number per class,",
            model.output_shape,
            (None, data.classes),
        ),
    ):
        if not _fits(has, needs):
            raise UsageError(
                f"--model={path} must {what} {_sizes(needs)} for "
                f"--dataset={data.name}; it has {_sizes(has)}"
            )
    if not model.trainable_variables:
        raise UsageError(f"--model={path} has no trainable weights")
    return model


def _fits(shape, needed):
    if not isinstance(shape, tuple) or len(shape) != len(needed):
        return False
    return all(
        a in (None, b) for a, b in zip(shape[1:], needed[1:], strict=True)
    )


def _sizes(shape):
    if isinstance(shape, tuple) and len(shape) > 1:
        return " x ".join(map(str, shape[1:]))
    return f"the shape {shape}"


def loss(model: keras.Model) -> keras.losses.Loss:
    """Cross-entropy of the labels, for logits or for a final softmax."""
    last = model.layers[-1]
    softmax = isinstance(last, layers.Softmax) or (
        getattr(last, "activation", None) is keras.activations.softmax
    )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)


def jit_compile(model: keras.Model, choice: str, steps: int) -> bool | str:
    """What to pass to `compile` for `--jit`.

    Keras's own `"auto"` compiles on accelerators and with JAX; dense networks
    gain from it on a CPU as well, in a run long enough to earn back the seconds
    it takes.
    """
    if choice != "auto":
        return choice == "true"
    return True if is_dense(model) and steps >= LONG else "auto"


def is_dense(model: keras.Model) -> bool:
    """Whether the network multiplies by dense matrices alone."""
    return all(isinstance(layer, _DENSE_LAYERS) for layer in model.layers)
