"""How operations of `keras.ops` on one tensor act on channels."""

import keras
import numpy as np
from keras import ops

from keras_wd.graph import traits
from keras_wd.graph.channels import Channels
from keras_wd.graph.channels import NeedsAll
from keras_wd.graph.channels import reshaped
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step

# Operations that treat the channels alike and keep what is constant.
_KEEPING_OPERATIONS = {"Cast", "Identity", "ExpandDims", "Squeeze"}
_UNBOUNDED = {"Divide", "Exp", "Multiply", "Sqrt", "Square", "TrueDivide"}
_WITH_NUMBERS = {
    "Add",
    "Divide",
    "TrueDivide",
    "Maximum",
    "Minimum",
    "Multiply",
    "Subtract",
}


def operated(graph: Graph, step: Step, read: Channels) -> Channels:
    """The channels after an operation on one tensor, with numbers maybe."""
    name = traits.operation_name(step.operation)
    before = graph.shapes[step.inputs[0]]
    after = graph.shapes[step.outputs[0]]
    if name in _KEEPING_OPERATIONS and after[-1:] == before[-1:]:
        return read
    if name in ("Mean", "Max") and after[-1:] == before[-1:]:
        axes = step.operation.axis
        axes = axes if isinstance(axes, list | tuple) else [axes]
        if None not in axes and not {-1, len(before) - 1} & set(axes):
            return read
    if name == "Pad" and after[-1:] == before[-1:]:
        border = np.where(read.constants == 0, 0.0, np.nan)
        if getattr(step.operation, "mode", "constant") == "constant":
            return read.with_constants(border)
    if name == "Reshape":
        return reshaped(graph, step, read)
    if name in _WITH_NUMBERS | traits.ELEMENTWISE_OPERATIONS:
        numbers = [
            np.asarray(ops.convert_to_numpy(value))
            for value in keras.tree.flatten(list(step.options.values()))
            if not isinstance(value, keras.KerasTensor | str | bool | None)
        ]
        if any(number.size != 1 for number in numbers):
            raise NeedsAll(
                f"{step.path} ({name}) joins it with a constant tensor"
            )
        gains, bounded = read.gains, name not in _UNBOUNDED
        if name == "Multiply" and len(numbers) == 1:
            gains, bounded = gains * abs(float(numbers[0])), True
        constants = _evaluated(step, read.constants)
        return read.with_gains(constants, gains, bounded)
    if name == "Concatenate":
        raise NeedsAll(f"{step.path} joins it with a constant tensor")
    raise NeedsAll(
        f"{step.path} ({name}) is not known to treat channels separately"
    )


def _evaluated(step, constants):
    """What an operation makes of the channels that are constant."""
    known = ~np.isnan(constants)
    result = np.full_like(constants, np.nan)
    if known.any():
        values = ops.convert_to_tensor(constants[known], "float32")
        args, kwargs = keras.tree.map_structure(
            lambda v: values if isinstance(v, keras.KerasTensor) else v,
            (step.node.arguments.args, dict(step.node.arguments.kwargs)),
        )
        made = step.operation.call(*args, **kwargs)
        result[known] = ops.convert_to_numpy(made)
    return result


def rescaled(step: Step, read: Channels) -> Channels:
    """The channels after a `Rescaling` layer."""
    factor = np.asarray(step.operation.scale, "float64")
    offset = np.asarray(step.operation.offset, "float64")
    if factor.size != 1 or offset.size != 1:
        raise NeedsAll(f"{step.path} rescales every channel by its own number")
    constants = read.constants * factor.item() + offset.item()
    gains = read.gains * abs(factor.item())
    return read.with_gains(constants, gains)
