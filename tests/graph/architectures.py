"""Random models, and weights of which some units are dead."""

import functools
import itertools

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers

ACTIVATIONS = (None, "relu", "leaky_relu", "tanh")


def weights_layers(model):
    """All Dense and convolution layers with a kernel of units, by class."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += weights_layers(layer)
        elif type(layer) in (layers.Dense, layers.Conv1D, layers.Conv2D):
            found.append(layer)
    return found


def _all_layers(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _all_layers(layer)
        else:
            yield layer


def randomize(model, seed=0):
    """Give every weight, bias and statistic a random value."""
    rng = np.random.default_rng(seed)
    for layer in _all_layers(model):
        for variable in layer.weights:
            values = rng.normal(size=variable.shape)
            if variable.path.endswith("moving_variance"):
                values = np.abs(values) + 0.5
            elif len(variable.shape) > 1:
                fan_in = np.prod(variable.shape[:-1])
                values = values / np.sqrt(fan_in) * 1.5
            variable.assign(values)
    return model


def kill_units(model, seed=0, share=0.5, incoming=True, outgoing=True):
    """Zero the columns, or the rows, of about a share of the units."""
    rng = np.random.default_rng(seed)
    for layer in weights_layers(model):
        kernel = np.asarray(layer.kernel).copy()
        if incoming:
            kernel[..., rng.random(kernel.shape[-1]) < share] = 0
        if outgoing:
            kernel[..., rng.random(kernel.shape[-2]) < share, :] = 0
        layer.kernel.assign(kernel)
    return model


def kill_flattened_rows(model, positions, units, dead):
    """Zero the rows of a Dense layer that read the dead channels."""
    (layer,) = [
        layer
        for layer in weights_layers(model)
        if type(layer) is layers.Dense
        and layer.kernel.shape[0] == positions * units
    ]
    kernel = np.asarray(layer.kernel).copy()
    kernel.reshape(positions, units, -1)[:, dead] = 0
    layer.kernel.assign(kernel)


def examples(model, count=7, seed=1):
    rng = np.random.default_rng(seed)
    arrays = [
        rng.normal(size=(count, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]
    return arrays[0] if len(arrays) == 1 else arrays


def outputs(model, x):
    """All outputs of a model at inference as one array."""
    made = keras.tree.flatten(model(x, training=False))
    flat = [keras.ops.convert_to_numpy(y).reshape(len(y), -1) for y in made]
    return np.concatenate(flat, axis=1)


def assert_same_outputs(first, second, x, tolerance=1e-5):
    """Equal up to float32 rounding, relative to the largest output."""
    expected, found = outputs(first, x), outputs(second, x)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


class Choices:
    """Choices that whole numbers make, so that hypothesis can draw a model.

    Keras makes random weights while it builds a model, which hypothesis does
    not allow where it draws: it draws the numbers, and the test builds.
    """

    def __init__(self, numbers):
        self._numbers = itertools.cycle(numbers)

    def among(self, options):
        options = list(options)
        return options[next(self._numbers) % len(options)]


# One step of a drawn network: a function of (choices, tensor) to a tensor.


def _conv(choices, x):
    size = choices.among([1, 2, 3])
    padding = "same" if min(x.shape[1:3]) < size else None
    return layers.Conv2D(
        choices.among(range(1, 6)),
        size,
        padding=padding or choices.among(["same", "valid"]),
        strides=choices.among([1, 1, 2]),
        activation=choices.among(ACTIVATIONS),
        use_bias=choices.among([True, False]),
    )(x)


def _depthwise(choices, x):
    return layers.DepthwiseConv2D(
        2,
        padding=choices.among(["same", "valid"])
        if min(x.shape[1:3]) > 1
        else "same",
        depth_multiplier=choices.among(range(1, 3)),
        activation=choices.among([None, "relu"]),
        use_bias=choices.among([True, False]),
    )(x)


def _normalization(choices, x):
    return layers.BatchNormalization(
        scale=choices.among([True, False]), center=choices.among([True, False])
    )(x)


def _rectifier(choices, x):
    return choices.among(
        [
            layers.ReLU(),
            layers.LeakyReLU(),
            layers.PReLU(),
            layers.PReLU(shared_axes=[1, 2]),
            layers.Activation("elu"),
            layers.Dropout(0.3),
        ]
    )(x)


def _resize(choices, x):
    options = [layers.ZeroPadding2D(1), layers.UpSampling2D(2)]
    if min(x.shape[1:3]) > 1:
        options += [layers.MaxPooling2D(2), layers.AveragePooling2D(2)]
    if min(x.shape[1:3]) > 4:
        options = options[2:]
    return choices.among(options)(x)


def _residual(choices, x):
    channels = x.shape[-1]
    y = layers.Conv2D(3, 1, activation="relu")(x)
    y = layers.Conv2D(channels, 3, padding="same")(y)
    merge = choices.among([layers.Add, layers.Multiply, layers.Concatenate])
    return merge()([x, y])


def _nested(choices, x):
    inner = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layers.Conv2D(choices.among(range(1, 5)), 1, activation="relu"),
            layers.ReLU(),
        ]
    )
    return inner(x)


_IMAGE_STEPS = (
    _conv,
    _conv,
    _conv,
    _depthwise,
    _normalization,
    _rectifier,
    _resize,
    _residual,
    _nested,
)


def _to_vector(choices, x):
    count = int(np.prod(x.shape[1:]))
    return choices.among(
        [
            layers.Flatten(),
            layers.Reshape((count,)),
            layers.GlobalAveragePooling2D(),
            layers.GlobalMaxPooling2D(),
        ]
    )(x)


def image_models():
    """Strategy of functions that build a functional model of images."""
    numbers = st.lists(st.integers(0, 999), min_size=25, max_size=25)
    return numbers.map(lambda drawn: functools.partial(_image_model, drawn))


def _image_model(numbers):
    keras.utils.clear_session(free_memory=False)
    choices = Choices(numbers)
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(4, 2, activation="relu")(inputs)
    for _ in range(choices.among(range(1, 6))):
        x = choices.among(_IMAGE_STEPS)(choices, x)
    x = _to_vector(choices, x)
    for _ in range(choices.among(range(3))):
        x = layers.Dense(
            choices.among(range(1, 7)),
            choices.among(ACTIVATIONS),
            use_bias=choices.among([True, False]),
        )(x)
    x = layers.Dense(3, choices.among([None, "softmax"]))(x)
    return randomize(keras.Model(inputs, x), choices.among(range(100)))
