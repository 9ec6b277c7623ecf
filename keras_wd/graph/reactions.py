"""What a layer makes of tensors that a scaled weight has moved.

A tensor is in one of five states when a weight is multiplied by c > 0:

    fixed     it stays what it was
    scaled    it is multiplied by c
    shifted   multiplied by c (or 1), plus a constant per channel
    mixed     some channels are fixed, others scaled or shifted
    broken    anything else

A batch normalization, which removes scale and mean of every channel, brings
all but the last back to fixed; other normalizations only what is scaled.
"""

import dataclasses
from collections.abc import Sequence

from keras import layers

from keras_wd.graph import kinds
from keras_wd.graph.homogeneity import NORMALIZATIONS
from keras_wd.graph.read import Graph
from keras_wd.graph.read import Step

# What takes no account of other positions, so that a constant stays one.
_KEEP_CONSTANTS = (
    *kinds.GLOBAL_POOLING,
    *kinds.CROPPING,
    *kinds.UPSAMPLING,
    layers.Identity,
)
_KEEP_SCALE = (
    *_KEEP_CONSTANTS,
    *kinds.DROPOUT,
    *kinds.POOLING,
    *kinds.PADDING,
    layers.Flatten,
    layers.Permute,
    layers.PReLU,
    layers.Reshape,
)
_LINEAR = (
    layers.Dense,
    layers.EinsumDense,
    *kinds.CONVOLUTIONS,
    *kinds.DEPTHWISE,
)
_SUMS = (layers.Add, layers.Average, layers.Subtract)
_EXTREMES = (layers.Maximum, layers.Minimum)


@dataclasses.dataclass(frozen=True)
class Reaction:
    """The state of what a step makes, and why if it is broken."""

    state: str
    reason: str = ""


def reaction_of(
    graph: Graph, step: Step, inputs: Sequence[str], moved: str | None
) -> Reaction:
    """The state of the outputs of a step.

    Args:
        graph: of the model.
        step: a call of a layer.
        inputs: the states of what it reads.
        moved: "scale" or "offset" if a weight of this very layer moves.
    """
    operation = step.operation
    if operation is None:
        return Reaction(inputs[0] if inputs else "fixed")
    if moved is None and set(inputs) <= {"fixed"}:
        return Reaction("fixed")
    if "broken" in inputs:
        return Reaction("broken", f"{step.path} reads what depends on it")
    unusual = _unusual(step)
    if unusual:
        return Reaction("broken", unusual)
    if moved is not None:
        return _moved(step, inputs, moved)
    if kinds.is_exactly(operation, NORMALIZATIONS):
        return _normalized(graph, step, inputs[0])
    if kinds.is_exactly(operation, _LINEAR):
        return _multiplied(step, inputs[0])
    if kinds.is_exactly(operation, _KEEP_SCALE):
        return _passed(step, inputs[0])
    if kinds.is_relu_operation(operation):
        return _activated(inputs[0], step.path, None)
    if kinds.is_exactly(operation, kinds.ACTIVATION_LAYERS):
        reason = kinds.not_homogeneous(operation)
        return _activated(inputs[0], step.path, reason)
    return _merged(graph, step, inputs)


def _unusual(step):
    operation = step.operation
    reason = kinds.wrong_format(operation)
    if reason is None and step.options:
        reason = f"{step.path} is called with {', '.join(step.options)}"
    if reason is None and getattr(operation, "activity_regularizer", None):
        reason = f"{step.path} has an activity regularizer"
    return reason


def _moved(step, inputs, moved):
    """A layer whose own weight is scaled."""
    layer = step.operation
    if set(inputs) - {"fixed"}:
        return Reaction("broken", f"{step.path} is called on its own output")
    if kinds.is_exactly(layer, layers.BatchNormalization):
        shifted = moved == "offset" or layer.beta is not None
    else:
        bias = getattr(layer, "bias", None)
        shifted = moved == "offset" or bias is not None
    return _after_activation(step, "shifted" if shifted else "scaled")


def _after_activation(step, state):
    activation = kinds.activation_of(step.operation)
    if activation is None or kinds.activation_name(activation) == "linear":
        return Reaction(state)
    return _activated(state, step.path, kinds.not_homogeneous(activation))


def _activated(state, path, reason):
    if reason:
        return Reaction("broken", f"its scale reaches {path}: {reason}")
    if state == "scaled":
        return Reaction("scaled")
    return Reaction(
        "broken", f"a bias is added before {path} and does not scale with it"
    )


def _normalized(graph, step, state):
    layer = step.operation
    if kinds.is_exactly(layer, layers.BatchNormalization):
        last = len(graph.shapes[step.inputs[0]]) - 1
        if layer.axis not in (-1, last):
            return Reaction(
                "broken", f"{step.path} does not normalize the last axis"
            )
        if not layer.trainable:
            return Reaction(
                "broken", f"{step.path} is frozen, with fixed statistics"
            )
        return Reaction("fixed")
    if state == "scaled":
        return Reaction("fixed")
    return Reaction(
        "broken", f"a bias that {step.path} does not remove is added to it"
    )


def _multiplied(step, state):
    """A linear layer with weights of its own."""
    layer = step.operation
    if state == "mixed":
        return Reaction("broken", f"{step.path} mixes channels with others")
    if state == "shifted" and not _keeps_constants(layer):
        return Reaction(
            "broken", f"{step.path} pads what a bias was added to with zeros"
        )
    if getattr(layer, "bias", None) is not None:
        state = "shifted"
    return _after_activation(step, state)


def _keeps_constants(layer):
    """Whether the same constant everywhere gives one everywhere."""
    if kinds.is_exactly(layer, layers.Dense):
        return True
    if kinds.is_exactly(layer, layers.EinsumDense):
        return False
    windows = set(layer.kernel_size) == {1}
    return windows or layer.padding == "valid"


def _passed(step, state):
    layer = step.operation
    if state == "scaled" or kinds.is_exactly(layer, _KEEP_CONSTANTS):
        return Reaction(state)
    # Maxima and means of a window keep a constant; zeros at the border do not.
    if kinds.is_exactly(layer, kinds.POOLING) and layer.padding == "valid":
        return Reaction(state)
    if kinds.is_exactly(layer, layers.Flatten) and state == "shifted":
        return Reaction(state)
    return Reaction(
        "broken", f"a bias is added before {step.path}, which acts on it"
    )


def _merged(graph, step, inputs):
    operation = step.operation
    states = set(inputs)
    written = kinds.merging_operation(operation)
    if written or kinds.is_exactly(operation, _SUMS):
        if states <= {"scaled"}:
            return Reaction("scaled")
        if states <= {"scaled", "shifted"}:
            return Reaction("shifted")
    elif kinds.is_exactly(operation, _EXTREMES):
        if states <= {"scaled"}:
            return Reaction("scaled")
    elif kinds.is_exactly(operation, layers.Multiply):
        if states <= {"fixed", "scaled"} and inputs.count("scaled") == 1:
            return Reaction("scaled")
    elif kinds.is_exactly(operation, layers.Concatenate):
        if states <= {"scaled"}:
            return Reaction("scaled")
        last = len(graph.shapes[step.inputs[0]]) - 1
        if operation.axis in (-1, last):
            return Reaction("mixed")
    kind = type(operation).__name__
    return Reaction(
        "broken", f"its scale reaches {step.path} ({kind}), which depends on it"
    )
