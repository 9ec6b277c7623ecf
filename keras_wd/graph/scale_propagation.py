"""What a layer makes of tensors that a scaled weight has moved.

A tensor is in one of six states when a weight is multiplied by c > 0:

    fixed     it stays what it was
    scaled    it is multiplied by c
    shifted   multiplied by c (or 1), plus a constant per channel
    mixed     some channels are fixed, others scaled or shifted
    changed   certainly something else
    unknown   it may be any of these

A batch normalization, which removes scale and mean of every channel, brings
the first four back to fixed; other normalizations only what is scaled.
"""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from keras_wd.graph import traits
from keras_wd.graph.homogeneity import NORMALIZATIONS
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step

# What takes no account of other positions, so that a constant stays one.
_KEEP_CONSTANTS = (
    *traits.GLOBAL_POOLING,
    *traits.CROPPING,
    *traits.UPSAMPLING,
    layers.Identity,
)
_KEEP_SCALE = (
    *_KEEP_CONSTANTS,
    *traits.DROPOUT,
    *traits.POOLING,
    *traits.PADDING,
    layers.Flatten,
    layers.Permute,
    layers.PReLU,
    layers.RepeatVector,
    layers.Reshape,
)
LINEAR = (
    layers.Dense,
    layers.EinsumDense,
    *traits.CONVOLUTIONS,
    *traits.TRANSPOSED,
    *traits.DEPTHWISE,
    *traits.SEPARABLE,
)
# No number that they make is c times another one; but for noise.
_CHANGING = (layers.Softmax, layers.ActivityRegularization)
_SUMS = ("Add", "Average", "Subtract")
_EXTREMES = ("Maximum", "Minimum")
_ONCE = ("Divide", "Multiply", "TrueDivide")


@dataclasses.dataclass(frozen=True)
class Reaction:
    """The state of what a step makes, and why if it is beyond following."""

    state: str
    reason: str = ""


def _changed(reason):
    return Reaction("changed", reason)


def _unknown(reason):
    return Reaction("unknown", reason)


def reaction_of(
    graph: Graph, step: Step, inputs: Sequence[str], moved: str | None
) -> Reaction:
    """The state of the outputs of a step.

    Args:
        graph: of the model.
        step: a call of a layer.
        inputs: the states of what it reads; none is changed or unknown.
        moved: "scale", "offset" or "other" if a weight of this very layer
            moves: it is a factor of what the layer makes, a summand of every
            channel, or neither.
    """
    operation = step.operation
    if operation is None:
        return Reaction(inputs[0] if inputs else "fixed")
    if moved is None and set(inputs) <= {"fixed"}:
        return Reaction("fixed")
    if getattr(operation, "activity_regularizer", None):
        return _changed(f"{step.path} has an activity regularizer")
    reason = traits.wrong_format(operation)
    if reason:
        return _unknown(reason)
    if moved is not None:
        return _moved(step, inputs, moved)
    name = _merging_name(operation)
    if name and (len(step.inputs) > 1 or name in (*_SUMS, *_ONCE)):
        return _merged(graph, step, inputs, name)
    if step.options and not traits.operation_name(operation):
        return _unknown(f"{step.path} is called with {', '.join(step.options)}")
    if len(inputs) > 1:
        return _unknown(_not_known(step))
    if traits.is_exactly(operation, NORMALIZATIONS):
        return _normalized(graph, step, inputs[0])
    if traits.is_exactly(operation, LINEAR):
        return _multiplied(step, inputs[0])
    if traits.is_layer_scale(operation):
        # Channel by channel: the constants of a shift are others then.
        return Reaction(inputs[0])
    if traits.is_exactly(operation, layers.Rescaling):
        return _rescaled(step, inputs[0])
    if traits.is_exactly(operation, _KEEP_SCALE):
        return _passed(graph, step, inputs[0])
    if traits.is_exactly(operation, traits.NOISE):
        return _changed(f"its scale reaches the noise of {step.path}")
    if traits.is_exactly(operation, _CHANGING):
        return _changed(f"its scale reaches {step.path}")
    if traits.is_exactly(operation, traits.ACTIVATION_LAYERS):
        return _activated(step, inputs[0], operation)
    return _operated(graph, step, inputs[0])


def _not_known(step):
    kind = type(step.operation).__name__
    return f"its scale reaches {step.path} ({kind}), which is not known"


def _moved(step, inputs, moved):
    """A layer whose own weight is scaled."""
    layer = step.operation
    if set(inputs) - {"fixed"}:
        return _changed(f"{step.path} is called on its own output")
    if moved == "other":
        return _changed(f"{step.path} does not scale with it")
    bias = getattr(layer, "bias", None)
    if traits.is_exactly(layer, NORMALIZATIONS):
        bias = getattr(layer, "beta", None)
    if bias is not None and not _is_per_channel(layer, bias):
        return _changed(f"the bias of {step.path} is not one per channel")
    shifted = moved == "offset" or bias is not None
    return _after_activation(step, "shifted" if shifted else "scaled")


def _is_per_channel(layer, bias):
    """Whether a bias adds one number to every channel of the last axis."""
    if traits.is_exactly(layer, layers.EinsumDense):
        made, axes = layer.equation.split("->")[-1], layer.bias_axes or ""
        sizes = dict(
            zip(
                (axis for axis in made if axis in axes),
                bias.shape[: len(axes)],
                strict=True,
            )
        )
        sizes.pop(made[-1], None)
        return set(sizes.values()) <= {1}
    return len(bias.shape) == 1


def _after_activation(step, state):
    activation = traits.activation_of(step.operation)
    if activation is None or traits.activation_name(activation) == "linear":
        return Reaction(state)
    return _activated(step, state, activation)


def _activated(step, state, activation):
    reason = traits.not_homogeneous(activation)
    if reason and not traits.is_known(activation):
        name = traits.activation_name(activation)
        return _unknown(f"its scale reaches {step.path}: {name} is not known")
    if reason:
        return _changed(f"its scale reaches {step.path}: {reason}")
    if state == "scaled":
        return Reaction("scaled")
    return _changed(
        f"a bias is added before {step.path} and does not scale with it"
    )


def _normalized(graph, step, state):
    layer = step.operation
    if traits.is_exactly(layer, layers.BatchNormalization):
        last = len(graph.shapes[step.inputs[0]]) - 1
        if layer.axis not in (-1, last):
            return _unknown(f"{step.path} does not normalize the last axis")
        if not layer.trainable:
            return _changed(f"{step.path} is frozen, with fixed statistics")
        if step.inference:
            return _changed(
                f"{step.path} is called with training=False, with fixed "
                "statistics"
            )
        return Reaction("fixed")
    if state == "scaled":
        return Reaction("fixed")
    return _changed(f"a bias that {step.path} does not remove is added to it")


def _multiplied(step, state):
    """A linear layer with weights of its own."""
    layer = step.operation
    if state == "mixed":
        return _changed(f"{step.path} mixes channels with others")
    if traits.changed_weights(layer):
        return _unknown(traits.changed_weights(layer))
    if state == "shifted" and not _keeps_constants(layer):
        if traits.is_exactly(layer, layers.EinsumDense):
            return _unknown(
                f"{step.path} may mix what a bias was added to with others"
            )
        return _changed(f"{step.path} pads what a bias was added to with zeros")
    bias = getattr(layer, "bias", None)
    if bias is not None:
        if not _is_per_channel(layer, bias):
            return _changed(f"the bias of {step.path} is not one per channel")
        state = "shifted"
    return _after_activation(step, state)


def _keeps_constants(layer):
    """Whether the same constant everywhere gives one everywhere."""
    if traits.is_exactly(layer, layers.Dense):
        return True
    if traits.is_exactly(layer, (layers.EinsumDense, *traits.TRANSPOSED)):
        return False
    windows = set(layer.kernel_size) == {1}
    return windows or layer.padding == "valid"


def _rescaled(step, state):
    offset = np.asarray(step.operation.offset)
    factor = np.asarray(step.operation.scale)
    if state == "scaled" and not offset.any():
        return Reaction("scaled")
    if offset.size == 1 and factor.size == 1:
        return Reaction("mixed" if state == "mixed" else "shifted")
    return _unknown(_not_known(step))


def _passed(graph, step, state):
    layer = step.operation
    if state == "scaled" or traits.is_exactly(layer, _KEEP_CONSTANTS):
        return Reaction(state)
    # Maxima and means of a window keep a constant; zeros at the border do not.
    if traits.is_exactly(layer, traits.POOLING) and layer.padding == "valid":
        return Reaction(state)
    if traits.is_exactly(layer, layers.Flatten) and state == "shifted":
        return Reaction(state)
    if traits.is_exactly(layer, layers.Reshape) and _keeps_channels(
        graph, step
    ):
        return Reaction(state)
    if state == "mixed" or traits.is_exactly(
        layer, (layers.Reshape, layers.Permute, layers.RepeatVector)
    ):
        return _unknown(_not_known(step))
    return _changed(f"a bias is added before {step.path}, which acts on it")


def _keeps_channels(graph, step):
    """Whether the last axis after a reshape is the one before."""
    before = graph.shapes[step.inputs[0]]
    after = graph.shapes[step.outputs[0]]
    return bool(before[1:]) and before[-1] == after[-1] is not None


def _operated(graph, step, state):
    """An operation of `keras.ops` with one tensor, or something unknown."""
    name = traits.operation_name(step.operation)
    if name in traits.HOMOGENEOUS_OPERATIONS and state == "scaled":
        padding = getattr(step.operation, "mode", "constant")
        value = getattr(step.operation, "constant_values", None)
        if name != "Pad" or (padding == "constant" and not value):
            return Reaction("scaled")
    if name in ("Cast", "Identity"):
        return Reaction(state)
    if name in ("ExpandDims", "Reshape", "Squeeze") and _keeps_channels(
        graph, step
    ):
        return Reaction(state)
    if name == "Split" and state == "shifted":
        # Each part is; of mixed channels it might be those that are fixed.
        return Reaction(state)
    if name in ("Relu", "LeakyRelu"):
        return _changed(
            f"a bias is added before {step.path} and does not scale with it"
        )
    if name in traits.ELEMENTWISE_OPERATIONS - {"Square", "Sqrt"} - (
        traits.HOMOGENEOUS_OPERATIONS
    ) or name in ("Softmax", "LogSoftmax"):
        return _changed(
            f"its scale reaches {step.path}: {name} is not positively "
            "homogeneous"
        )
    return _unknown(_not_known(step))


def _merging_name(operation):
    if traits.is_exactly(operation, (*traits.MERGING, layers.Concatenate)):
        return type(operation).__name__
    name = traits.operation_name(operation)
    return name if name in (*_SUMS, *_EXTREMES, *_ONCE, "Concatenate") else None


def _merged(graph, step, inputs, name):
    """A join of tensors, constants among them."""
    states, constants = set(inputs), _constants(step)
    if name in _SUMS:
        if any(not _is_one_per_channel(c) for c in constants):
            return _changed(f"{step.path} adds a constant to it")
        if constants:
            states |= {"shifted"}
        if len(states) > 1 and "fixed" in states:
            return _changed(f"{step.path} adds something to it")
        if states <= {"scaled"}:
            return Reaction("scaled")
        if states <= {"scaled", "shifted"}:
            return Reaction("shifted")
    elif name in _EXTREMES:
        if states <= {"scaled"} and not constants:
            return Reaction("scaled")
        return _changed(f"its scale reaches {step.path} ({name})")
    elif name in _ONCE:
        one = inputs.count("fixed") == len(inputs) - 1
        first = len(inputs) == 1 and not _is_constant_first(step)
        if (
            name == "Multiply"
            or inputs[0] == "scaled"
            and (len(inputs) > 1 or first)
        ):
            if one and "scaled" in states:
                return Reaction("scaled")
        if (
            (name == "Multiply" or first)
            and inputs == ["shifted"]
            and all(_is_one_per_channel(c) for c in constants)
        ):
            return Reaction("shifted")
        if one and states <= {"fixed", "shifted"} and name == "Multiply":
            return _changed(f"a bias is added before {step.path}")
    elif name == "Concatenate" and not constants:
        if states <= {"scaled"}:
            return Reaction("scaled")
        last = len(graph.shapes[step.inputs[0]]) - 1
        axis = getattr(step.operation, "axis", None)
        if axis in (-1, last):
            return Reaction("mixed")
    return _unknown(_not_known(step))


def _constants(step):
    """The constant tensors and numbers among the arguments of a join."""
    node = step.node
    return [
        np.asarray(keras.ops.convert_to_numpy(leaf))
        for leaf in keras.tree.flatten(
            [node.arguments.args, node.arguments.kwargs]
        )
        if leaf is not None
        and not isinstance(leaf, keras.KerasTensor | str | bool)
    ]


def _is_one_per_channel(constant):
    return constant.size == (constant.shape[-1] if constant.ndim else 1)


def _is_constant_first(step):
    first = keras.tree.flatten(step.node.arguments.args)[0]
    return not isinstance(first, keras.KerasTensor)
