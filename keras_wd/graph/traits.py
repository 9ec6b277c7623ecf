"""What layers do to the channels of a tensor, the last axis.

Only the exact classes of Keras are recognised: a subclass may compute
something else.
"""

from typing import Any

import keras
import numpy as np
from keras import activations
from keras import layers

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
POOLING = (
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
)
GLOBAL_POOLING = (
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
)
PADDING = (
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
CROPPING = (layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)
UPSAMPLING = (layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D)
DROPOUT = (
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
# Like dropout they do nothing at inference, but what they do in training is
# not the same for an input and for its double.
NOISE = (layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise)
UNCHANGED = (layers.Identity, layers.ActivityRegularization)
MERGING = (
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Subtract,
)
ACTIVATION_LAYERS = (
    layers.Activation,
    layers.ELU,
    layers.LeakyReLU,
    layers.ReLU,
)

# Activations that act on every number by itself.
_ELEMENTWISE = {
    getattr(activations, name)
    for name in (
        "celu",
        "elu",
        "exponential",
        "gelu",
        "hard_shrink",
        "hard_sigmoid",
        "hard_silu",
        "hard_tanh",
        "leaky_relu",
        "linear",
        "log_sigmoid",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "soft_shrink",
        "softplus",
        "softsign",
        "sparse_plus",
        "sparse_sigmoid",
        "squareplus",
        "tanh",
        "tanh_shrink",
        "threshold",
    )
    if hasattr(activations, name)
}
_MERGING_OPERATIONS = (
    "Add",
    "Concatenate",
    "Maximum",
    "Minimum",
    "Multiply",
    "Subtract",
)
# Operations that act on every number by itself.
ELEMENTWISE_OPERATIONS = {
    "Abs",
    "Absolute",
    "Celu",
    "Clip",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSilu",
    "HardTanh",
    "LeakyRelu",
    "LogSigmoid",
    "Negative",
    "Relu",
    "Relu6",
    "Selu",
    "Sigmoid",
    "Silu",
    "Softplus",
    "Softsign",
    "Square",
    "Sqrt",
    "Tanh",
}
_ARITHMETIC = {
    "Add",
    "Cast",
    "Divide",
    "Maximum",
    "Minimum",
    "Multiply",
    "Power",
    "Subtract",
    "TrueDivide",
}
# Operations for which f(c x) = c f(x) for all c > 0.
HOMOGENEOUS_OPERATIONS = {
    "Abs",
    "Absolute",
    "AveragePool",
    "BroadcastTo",
    "Cast",
    "ExpandDims",
    "Flip",
    "GetItem",
    "Identity",
    "LeakyRelu",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Moveaxis",
    "Negative",
    "Pad",
    "Relu",
    "Repeat",
    "Reshape",
    "Roll",
    "Split",
    "Squeeze",
    "Stack",
    "Sum",
    "Swapaxes",
    "Take",
    "Tile",
    "Transpose",
}
_HOMOGENEOUS = (
    None,
    activations.linear,
    activations.relu,
    activations.leaky_relu,
)


def is_exactly(operation: object, kinds) -> bool:
    """Whether the class is one of `kinds` itself, not a subclass."""
    return type(operation) in (kinds if isinstance(kinds, tuple) else (kinds,))


def is_unexported(operation: object, name: str) -> bool:
    """Whether this is a layer of Keras that only its applications have."""
    kind = type(operation)
    return (kind.__module__.split(".")[0], kind.__name__) == ("keras", name)


def is_layer_scale(operation: object) -> bool:
    """Whether this is the layer of ConvNeXt: x * gamma, by channel."""
    return is_unexported(operation, "LayerScale")


def operation_name(operation: keras.Operation) -> str | None:
    """The class of an operation of `keras.ops`, None for layers and others.

    An operation is what a function of `keras.ops`, or an operator such as
    `+`, leaves in the graph of a model.
    """
    kind = type(operation)
    if isinstance(operation, layers.Layer) or not _is_kerass_own(kind):
        return None
    return kind.__name__


def merging_operation(operation: keras.Operation) -> str | None:
    """The class of layer that an operation on two tensors acts as.

    "Add" for `x + y` written with the operator; None for the rest.
    """
    name = operation_name(operation)
    return name if name in _MERGING_OPERATIONS else None


def is_relu_operation(operation: keras.Operation) -> bool:
    """Whether this is `keras.ops.relu`, called outside of a layer."""
    return operation_name(operation) == "Relu"


def _is_kerass_own(kind):
    return kind.__module__.split(".")[0] == "keras"


def activation_of(operation: keras.Operation):
    """What a layer applies to its output, None for nothing."""
    return getattr(operation, "activation", None)


def is_elementwise(activation: object) -> bool:
    """Whether an activation acts on every number by itself."""
    if is_exactly(activation, ACTIVATION_LAYERS):
        inner = activation_of(activation)
        return inner is None or is_elementwise(inner)
    if activation is None or _is_in(activation, _ELEMENTWISE):
        return True
    return callable(activation) and _is_made_of_elementwise(activation)


def _is_made_of_elementwise(function):
    """Whether a function only applies operations on every number by itself.

    Followed on symbolic tensors of two sizes, since it may divide by one.
    """
    try:
        first, second = (_operations_of(function, size) for size in (5, 7))
    except Exception:  # whatever a function raises that is not of keras.ops
        return False
    return first == second and all(
        name in ELEMENTWISE_OPERATIONS | _ARITHMETIC
        and all(np.size(number) == 1 for number in numbers)
        for name, numbers in first
    )


def _operations_of(function, size):
    """Names of operations, and the numbers among their arguments."""
    entrance = keras.Input((size,))
    model = keras.Model(entrance, function(entrance))
    found = []
    for operation in model.operations:
        (node,) = operation._inbound_nodes
        if not node.is_input:
            leaves = keras.tree.flatten(
                [node.arguments.args, dict(node.arguments.kwargs)]
            )
            numbers = [
                np.asarray(keras.ops.convert_to_numpy(leaf)).tolist()
                for leaf in leaves
                if leaf is not None
                and not isinstance(leaf, keras.KerasTensor | str)
            ]
            found.append((operation_name(operation), numbers))
    return found


def not_homogeneous(activation: Any) -> str | None:
    """Why f(c x) = c f(x) does not hold for all c > 0; None if it does."""
    name = activation_name(activation)
    if is_exactly(activation, layers.Activation):
        return not_homogeneous(activation.activation)
    if is_exactly(activation, layers.ReLU):
        if activation.max_value is not None:
            return f"{name} stops growing at {float(activation.max_value):g}"
        if activation.threshold:
            return f"{name} has a threshold"
        return None
    if is_exactly(activation, layers.LeakyReLU):
        return None
    if any(activation is known for known in _HOMOGENEOUS):
        return None
    return f"{name} is not positively homogeneous"


def is_known(activation: Any) -> bool:
    """Whether an activation is one of Keras's own."""
    if is_exactly(activation, layers.Activation):
        return is_known(activation.activation)
    if isinstance(activation, layers.Layer):
        return is_exactly(activation, ACTIVATION_LAYERS)
    return activation is None or (
        _is_kerass_own(activation) and hasattr(activation, "__name__")
    )


def activation_name(activation: object) -> str:
    """What to call an activation in a message."""
    if isinstance(activation, layers.Layer):
        return activation.name
    return getattr(activation, "__name__", type(activation).__name__)


def wrong_format(operation: keras.Operation) -> str | None:
    """Why the channels are not on the last axis; None if they are."""
    if getattr(operation, "data_format", None) == "channels_first":
        return f"{operation.name} has data_format='channels_first'"
    return None


def changed_weights(layer: keras.Layer) -> str | None:
    """Why a layer does not simply compute with its kernel; None if it does."""
    if getattr(layer, "lora_enabled", False):
        return f"{layer.name} has LoRA weights"
    if getattr(layer, "quantization_mode", None):
        return f"{layer.name} is quantized"
    return None


def _is_in(item, collection):
    """Membership by identity, for callables that need not be hashable."""
    return any(item is member for member in collection)
