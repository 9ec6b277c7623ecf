"""How single layers act on channels."""

import re
from typing import Any

import keras
import numpy as np
from keras import layers
from keras import ops

from keras_wd.graph import traits
from keras_wd.graph.channels import Channels
from keras_wd.graph.channels import Classes
from keras_wd.graph.channels import MixesAll
from keras_wd.graph.channels import NeedsAll
from keras_wd.graph.channels import reshaped
from keras_wd.graph.kernels import array
from keras_wd.graph.kernels import foldable
from keras_wd.graph.normalizations import batch_normalized
from keras_wd.graph.normalizations import through_groups
from keras_wd.graph.normalizations import through_root_mean_square
from keras_wd.graph.operations import operated
from keras_wd.graph.operations import rescaled
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step

MERGING = (*traits.MERGING, layers.Concatenate)
# Layers with a weight per channel, or a shape in their configuration.
WITH_CHANNELS = (
    layers.BatchNormalization,
    layers.PReLU,
    layers.Reshape,
    *traits.DEPTHWISE,
    *(
        getattr(layers, name)
        for name in ("GroupNormalization", "RMSNormalization")
        if hasattr(layers, name)
    ),
)
_KEEP_CONSTANTS = (
    *traits.DROPOUT,
    *traits.NOISE,
    *traits.UNCHANGED,
    *traits.POOLING,
    *traits.GLOBAL_POOLING,
    *traits.CROPPING,
    *traits.UPSAMPLING,
)
WEIGHTED = (
    layers.Dense,
    *traits.CONVOLUTIONS,
    *traits.TRANSPOSED,
    *traits.SEPARABLE,
)
ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
_RECURRENT = (layers.RNN, layers.Bidirectional)
_ALLOWED_OPTIONS = ("use_causal_mask",)


def refuse_unusual(graph: Graph, step: Step) -> None:
    """Raise for calls and layers that no rule describes."""
    operation = step.operation
    reason = traits.wrong_format(operation)
    if reason:
        raise NeedsAll(f"{reason}, and only channels_last is supported")
    allowed = _ALLOWED_OPTIONS if isinstance(operation, ATTENTION) else ()
    options = [
        name
        for name, value in step.options.items()
        if name not in allowed
        and not (name == "return_attention_scores" and value is False)
    ]
    joins = traits.is_exactly(operation, MERGING)
    if options and isinstance(operation, layers.Layer) and not joins:
        said = ", ".join(f"{k}={step.options[k]!r}" for k in options)
        raise NeedsAll(f"{step.path} is called with {said}")
    if has_channels(operation) or traits.is_exactly(operation, ATTENTION):
        reason = traits.changed_weights(operation)
        if reason:
            raise NeedsAll(reason)


def has_channels(operation: keras.Operation | None) -> bool:
    """Whether this has one size, whatever it is called on.

    None stands for the entrance of a nested model.
    """
    return (
        operation is None
        or is_weighted(operation)
        or traits.is_exactly(operation, (*WITH_CHANNELS, layers.Embedding))
        or traits.is_layer_scale(operation)
        or traits.operation_name(operation) in ("Reshape", "Split")
    )


def is_weighted(operation: keras.Operation) -> bool:
    """Whether this is a layer whose kernel has rows and units.

    Dense, convolutions, and an EinsumDense that does what Dense does.
    """
    return traits.is_exactly(operation, WEIGHTED) or is_einsum_of_dense(
        operation
    )


def is_einsum_of_dense(operation: keras.Operation) -> bool:
    """Whether this is an EinsumDense from the last axis to the last axis."""
    if not traits.is_exactly(operation, layers.EinsumDense):
        return False
    form = re.fullmatch(
        r"(.*)(\w),(\w)(\w)->(.*)(\w)", operation.equation.replace(" ", "")
    )
    if form is None:
        return False
    before, row, first, second, after, unit = form.groups()
    bias = operation.bias_axes
    return (
        (row, unit, before) == (first, second, after)
        and not {row, unit} & set(before)
        and bias in (None, "", unit)
    )


def is_scaled_sum(operation: keras.Operation) -> bool:
    """Whether this is the layer of InceptionResNetV2: x + scale * y."""
    return traits.is_unexported(operation, "CustomScaleLayer")


def is_grouped(operation: keras.Operation) -> bool:
    """Whether this is a convolution in groups."""
    groups = getattr(operation, "groups", 1)
    return traits.is_exactly(operation, traits.CONVOLUTIONS) and groups != 1


def passed(
    classes: Classes, graph: Graph, step: Step, inputs: list[Channels]
) -> Channels:
    """The channels after a step with one input that it does not mix."""
    operation = step.operation
    if len(inputs) == 1 and len(step.outputs) == 1:
        (read,) = inputs
        if traits.is_exactly(operation, _KEEP_CONSTANTS):
            return read
        if traits.operation_name(operation):
            return operated(graph, step, read)
        if traits.is_exactly(operation, layers.Rescaling):
            return rescaled(step, read)
        if traits.is_exactly(operation, traits.ACTIVATION_LAYERS):
            return _through_activation(step, read)
        if traits.is_exactly(operation, traits.PADDING):
            border = np.where(read.constants == 0, 0.0, np.nan)
            return read.with_constants(border)
        if traits.is_exactly(operation, (layers.Flatten, layers.Reshape)):
            return reshaped(graph, step, read)
        if traits.is_exactly(operation, layers.BatchNormalization):
            return batch_normalized(graph, step, read)
        if traits.is_exactly(operation, layers.PReLU):
            return _through_prelu(operation, read)
        if traits.is_layer_scale(operation):
            return _through_scale(operation, read)
        if traits.is_exactly(operation, layers.GroupNormalization):
            return through_groups(classes, graph, step, read)
        if type(operation).__name__ == "RMSNormalization" and (
            traits.is_exactly(operation, WITH_CHANNELS)
        ):
            return through_root_mean_square(classes, graph, step, read)
        if traits.is_exactly(operation, layers.LayerNormalization):
            raise MixesAll(
                f"{step.path} subtracts the mean over all channels, which is "
                "another one without some of them"
            )
        if traits.is_exactly(operation, traits.DEPTHWISE):
            return _through_depthwise(step, read)
    raise NeedsAll(f"{step.path} ({type(operation).__name__}) {_why(step)}")


def _why(step):
    """Why no rule lets channels through a layer."""
    if isinstance(step.operation, _RECURRENT):
        return "is recurrent, and its kernels are not made smaller"
    if isinstance(step.operation, layers.SpectralNormalization):
        return (
            "divides a kernel by its largest singular value, which is another "
            "one without some channels"
        )
    return "is not known to treat channels separately"


def merged(
    classes: Classes, graph: Graph, step: Step, inputs: list[Channels]
) -> Channels:
    """The channels after a join of several tensors."""
    operation = step.operation
    shapes = [graph.shapes[tensor] for tensor in step.inputs]
    scales = np.ones(len(inputs))
    name = traits.merging_operation(operation) or type(operation).__name__
    if any(
        not isinstance(leaf, keras.KerasTensor | str | bool | int | None)
        for leaf in keras.tree.flatten(
            [step.node.arguments.args, dict(step.node.arguments.kwargs)]
        )
    ):
        raise NeedsAll(f"{step.path} joins it with a constant tensor")
    if name == "Concatenate" and operation.axis in (-1, len(shapes[0]) - 1):
        return Channels(
            *(
                np.concatenate([getattr(c, field) for c in inputs])
                for field in ("labels", "constants", "gains", "bounded")
            )
        )
    if is_scaled_sum(operation):
        name, scales = "Add", np.array([1.0, operation.scale])
    sizes = {len(channels) for channels in inputs}
    if len({len(shape) for shape in shapes}) > 1 or len(sizes) > 1:
        raise NeedsAll(f"{step.path} joins tensors of different shapes")
    for channels in inputs[1:]:
        classes.join(inputs[0].labels, channels.labels)
    constants = _MERGED_CONSTANTS[name](
        np.stack([c.constants * s for c, s in zip(inputs, scales, strict=True)])
    )
    factors = np.stack([channels.gains for channels in inputs])
    bounded = np.stack([channels.bounded for channels in inputs]).all(axis=0)
    if name == "Multiply":
        gains, bounded = _of_product(factors), np.zeros_like(bounded)
    else:
        gains = np.abs(scales) @ factors
    return Channels(inputs[0].labels, constants, gains, bounded)


def _of_product(gains):
    """The geometric mean, which grows with each layer as one gain does.

    Without those that do not move at all, as a gate before training.
    """
    moves = gains > 0
    logarithms = np.log(np.where(moves, gains, 1)).sum(axis=0)
    return np.exp(logarithms / np.maximum(moves.sum(axis=0), 1))


def _product(values):
    return np.where((values == 0).any(axis=0), 0.0, values.prod(axis=0))


def _agreed(values):
    return np.where((values == values[0]).all(axis=0), values[0], np.nan)


_MERGED_CONSTANTS = {
    "Add": lambda values: values.sum(axis=0),
    "Average": lambda values: values.mean(axis=0),
    "Concatenate": _agreed,
    "Maximum": lambda values: values.max(axis=0),
    "Minimum": lambda values: values.min(axis=0),
    "Multiply": _product,
    "Subtract": lambda values: values[0] - values[1],
}


def activated(activation: Any, constants: np.ndarray) -> np.ndarray:
    """An elementwise activation of the constants, in float32 as it runs."""
    known = ~np.isnan(constants)
    if activation is None or not known.any():
        return constants
    function = activation
    if isinstance(activation, layers.Layer):
        function = activation.call
    values = function(ops.convert_to_tensor(constants[known], "float32"))
    result = np.full_like(constants, np.nan)
    result[known] = ops.convert_to_numpy(values)
    return result


def _through_activation(step, read):
    if not traits.is_elementwise(step.operation):
        raise NeedsAll(
            f"the activation of {step.path} is not known to be elementwise"
        )
    return read.with_constants(activated(step.operation, read.constants))


def _through_prelu(layer, read):
    slopes = array(layer.alpha)
    slopes = slopes.reshape(-1, slopes.shape[-1])
    same = (slopes == slopes[0]).all(axis=0)
    below = np.where(same, slopes[0], np.nan) * read.constants
    constants = np.where(read.constants >= 0, read.constants, below)
    largest = np.maximum(np.abs(slopes).max(axis=0), 1)
    return read.with_gains(constants, read.gains * largest)


def _through_scale(layer, read):
    scale = array(layer.gamma)
    constants = np.where(scale == 0, 0.0, read.constants * scale)
    return read.with_gains(constants, read.gains * np.abs(scale))


def through_grouped(classes: Classes, step: Step, read: Channels) -> Channels:
    """The channels after a convolution in groups, which go as a whole."""
    layer = step.operation
    activation = traits.activation_of(layer)
    if not traits.is_elementwise(activation):
        raise NeedsAll(
            f"the activation of {step.path} is not known to be elementwise"
        )
    kernel = array(layer.kernel)
    kernel = kernel.reshape(-1, kernel.shape[-1])
    if not len(read):
        raise NeedsAll(f"{step.path} reads channels of unknown number")
    made = classes.new(kernel.shape[-1])
    groups = np.concatenate(
        [part.reshape(layer.groups, -1) for part in (read.labels, made)], axis=1
    )
    for labels in groups:
        classes.join(labels[:-1], labels[1:])
    constants = np.where((kernel == 0).all(axis=0), 0.0, np.nan)
    if layer.bias is not None:
        constants = constants + array(layer.bias)
    # What enters a group moves each of its outputs by no more than this.
    gains = read.gains.reshape(layer.groups, -1)
    gains = np.sqrt(np.square(gains).sum(axis=1))
    gains = np.repeat(gains, len(made) // layer.groups)
    gains = gains * np.sqrt(np.square(kernel).sum(axis=0))
    bounded = read.bounded.reshape(layer.groups, -1).all(axis=1)
    bounded = np.repeat(bounded, len(made) // layer.groups)
    return Channels(made, activated(activation, constants), gains, bounded)


def _through_depthwise(step, read):
    layer = step.operation
    values = array(layer.kernel)
    multiplier = values.shape[-1]
    kernel = values.reshape(-1, values.shape[-2] * multiplier)
    repeated = read.taken(np.repeat(np.arange(len(read)), multiplier))
    rows = foldable(layer, repeated.constants)
    constants = np.where((kernel == 0).all(axis=0), 0.0, rows * kernel.sum(0))
    if layer.bias is not None:
        constants = constants + array(layer.bias)
    activation = traits.activation_of(layer)
    if not traits.is_elementwise(activation):
        raise NeedsAll(
            f"the activation of {step.path} is not known to be elementwise"
        )
    gains = repeated.gains * np.sqrt(np.square(kernel).sum(axis=0))
    return repeated.with_gains(activated(activation, constants), gains)
