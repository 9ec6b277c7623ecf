"""The networks of the command line, for images of any size.

`vgg16` and `resnet32` are those of Zhang, Wang, Xu and Grosse, 2019, "Three
Mechanisms of Weight Decay Regularization": ResNet32 four times as wide as
usual, VGG16 with a single dense layer on top, batch normalization without
scale and shift, biases, uniform fan-average initialisation. All networks
return logits.
"""

import dataclasses
from collections.abc import Callable

import keras
from keras import layers

from keras_wd.constraints import FixedNorm

# Var(w) = 2 / (fan_in + fan_out), uniform.
INITIALIZER = "glorot_uniform"


@dataclasses.dataclass(frozen=True)
class Design:
    """What can be chosen about a network.

    Attributes:
        batch_norm: normalise after each hidden layer, before its ReLU.
        bias: give dense and convolutional layers biases.
        hidden_units: widths of the hidden layers (`mlp` alone).
        fixed_norm: keep the weights of every hidden unit at norm 1.
    """

    batch_norm: bool = False
    bias: bool = True
    hidden_units: tuple[int, ...] = (256, 256)
    fixed_norm: bool = False

    @property
    def constraint(self) -> FixedNorm | None:
        """What the kernels of the hidden layers are kept to."""
        return FixedNorm() if self.fixed_norm else None


def mlp(inputs: keras.KerasTensor, design: Design) -> keras.KerasTensor:
    """Dense layers with ReLU."""
    x = layers.Flatten()(inputs)
    for index, units in enumerate(design.hidden_units, 1):
        x = _dense(x, units, f"hidden_{index}", design)
    return x


def cnn(inputs: keras.KerasTensor, design: Design) -> keras.KerasTensor:
    """Two pairs of convolutions (32, 64 channels) and a dense layer."""
    x = _stacks(inputs, ((32, 2), (64, 2)), design)
    return _dense(layers.Flatten()(x), 128, "hidden", design)


def vgg16(inputs: keras.KerasTensor, design: Design) -> keras.KerasTensor:
    """13 convolutions; pooled to one pixel where the image is larger."""
    stacks = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    return layers.GlobalAveragePooling2D()(_stacks(inputs, stacks, design))


def resnet32(inputs: keras.KerasTensor, design: Design) -> keras.KerasTensor:
    """31 convolutions in residual blocks of 64, 128 and 256 channels."""
    x = _convolution(inputs, 64, "stem", design)
    for stage, channels in enumerate((64, 128, 256), 1):
        for block in range(1, 6):
            halve = stage > 1 and block == 1
            x = _residual(x, channels, halve, f"block{stage}_{block}", design)
    return layers.GlobalAveragePooling2D()(x)


NETWORKS: dict[str, Callable] = {
    "mlp": mlp,
    "cnn": cnn,
    "vgg16": vgg16,
    "resnet32": resnet32,
}


def is_file(name: str) -> bool:
    """Whether `--model` is the path of a saved model, not of `NETWORKS`."""
    return name.endswith(".keras")


def build(
    name: str,
    input_shape: tuple[int, ...],
    classes: int,
    design: Design | None = None,
) -> keras.Model:
    """Build a network of `NETWORKS`.

    Args:
        name: a key of `NETWORKS`; also the name of the model.
        input_shape: `(height, width, channels)`.
        classes: number of logits.
        design: the choices, `Design()` by default.
    """
    design = design or Design()
    inputs = keras.Input(input_shape, name="image")
    features = NETWORKS[name](inputs, design)
    logits = layers.Dense(
        classes,
        use_bias=design.bias,
        kernel_initializer=INITIALIZER,
        name="logits",
    )(features)
    return keras.Model(inputs, logits, name=name)


def _dense(x, units, name, design):
    x = layers.Dense(
        units,
        use_bias=design.bias,
        kernel_initializer=INITIALIZER,
        kernel_constraint=design.constraint,
        name=name,
    )(x)
    return layers.ReLU(name=f"{name}_relu")(_normalize(x, name, design))


def _convolution(x, channels, name, design, size=3, strides=1, relu=True):
    x = layers.Conv2D(
        channels,
        size,
        strides=strides,
        padding="same",
        use_bias=design.bias,
        kernel_initializer=INITIALIZER,
        kernel_constraint=design.constraint,
        name=name,
    )(x)
    x = _normalize(x, name, design)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _normalize(x, name, design):
    if not design.batch_norm:
        return x
    return layers.BatchNormalization(
        center=False, scale=False, name=f"{name}_bn"
    )(x)


def _stacks(x, stacks, design):
    """Convolutions, each stack followed by a pooling while there is size."""
    for stack, (channels, depth) in enumerate(stacks, 1):
        for index in range(1, depth + 1):
            x = _convolution(x, channels, f"conv{stack}_{index}", design)
        if max(x.shape[1:3]) > 1:
            x = layers.MaxPooling2D(2, padding="same", name=f"pool{stack}")(x)
    return x


def _residual(x, channels, halve, name, design):
    strides = 2 if halve else 1
    y = _convolution(x, channels, f"{name}_conv1", design, strides=strides)
    y = _convolution(y, channels, f"{name}_conv2", design, relu=False)
    if halve:
        x = _convolution(
            x, channels, f"{name}_skip", design, 1, strides, relu=False
        )
    return layers.ReLU(name=f"{name}_relu")(layers.Add()([x, y]))
