"""What lies between two layers: does scaling pass through it unchanged?

Scaling a unit's input weights by c > 0 must scale what its output weights
receive by c, whatever the input, in training and at inference.
"""

import dataclasses
import math

from keras import layers

from keras_wd.graph import traits
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step

WEIGHTED = (layers.Dense, *traits.CONVOLUTIONS)
NORMALIZATIONS = tuple(
    getattr(layers, name)
    for name in (
        "BatchNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "UnitNormalization",
    )
    if hasattr(layers, name)
)
_PASSED = (
    *traits.DROPOUT,
    *traits.POOLING,
    *traits.GLOBAL_POOLING,
    *traits.PADDING,
    *traits.CROPPING,
    *traits.UPSAMPLING,
    layers.Identity,
    layers.PReLU,
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How units lie along the last axis: (positions, units, channels)."""

    positions: int = 1
    channels: int = 1


class Refused(Exception):
    """Two layers are not joined by homogeneous operations, and why."""


def only_reader(graph: Graph, tensor: int) -> Step:
    """The one step that reads a tensor.

    Raises:
        Refused: if several do, or the tensor leaves the model.
    """
    if tensor in graph.outputs:
        raise Refused("its output is an output of the model")
    readers = graph.consumers[tensor]
    if len(readers) != 1:
        names = ", ".join(reader.path for reader in readers) or "no layer"
        raise Refused(f"its output goes to {names}, not to one layer")
    return readers[0]


def pass_through(graph: Graph, step: Step, layout: Layout) -> Layout:
    """The layout after a step that scaling passes through.

    Raises:
        Refused: if it does not pass, or is not known to.
    """
    operation = step.operation
    if operation is None or traits.is_relu_operation(operation):
        return layout
    refuse_unusual_call(step)
    if traits.is_exactly(operation, _PASSED):
        return layout
    if traits.is_exactly(operation, traits.ACTIVATION_LAYERS):
        reason = traits.not_homogeneous(operation)
        if reason:
            raise Refused(reason)
        return layout
    if traits.is_exactly(operation, layers.Flatten):
        return _flattened(graph, step, layout)
    if traits.is_exactly(operation, layers.Reshape):
        return _reshaped(graph, step, layout)
    if traits.is_exactly(operation, traits.DEPTHWISE):
        refuse_activation(operation)
        refuse_sharing(graph, step)
        return dataclasses.replace(
            layout, channels=layout.channels * operation.depth_multiplier
        )
    raise Refused(_why_not(step))


def refuse_unusual_call(step: Step) -> None:
    """Raise for what changes the meaning of any layer."""
    reason = traits.wrong_format(step.operation)
    if reason:
        raise Refused(f"{reason}, and only channels_last is supported")
    if step.options:
        options = ", ".join(f"{k}={v!r}" for k, v in step.options.items())
        raise Refused(f"{step.path} is called with {options}")
    if getattr(step.operation, "activity_regularizer", None) is not None:
        raise Refused(
            f"{step.path} has an activity regularizer, whose loss depends on "
            "the scale of the activations"
        )


def refuse_sharing(graph: Graph, step: Step) -> None:
    """Raise if the layer of a step is called elsewhere too."""
    uses = graph.uses[id(step.operation)]
    if uses > 1:
        raise Refused(f"{step.path} is shared: it is called {uses} times")


def refuse_activation(layer) -> None:
    """Raise if a layer applies an activation that is not homogeneous."""
    reason = traits.not_homogeneous(traits.activation_of(layer))
    if reason:
        raise Refused(f"the activation of {layer.name} does not fit: {reason}")


def refuse_normalization_after(
    graph: Graph, step: Step, known: dict[Step, Step | None]
) -> None:
    """Raise if a normalization removes the scale of a layer's weights.

    Shrinking such weights changes nothing but their gradients, so a penalty
    on them has no minimum.

    Args:
        graph: of the model.
        step: the layer.
        known: what removes the scale behind steps, filled on the way.
    """
    passed = []
    while step not in known:
        passed.append(step)
        if traits.is_exactly(step.operation, NORMALIZATIONS):
            known[step] = step
            break
        try:
            if traits.is_exactly(step.operation, WEIGHTED):
                refuse_activation(step.operation)
            else:
                pass_through(graph, step, Layout())
            step = only_reader(graph, step.outputs[0])
        except Refused:
            known[step] = None
            break
    remover = known[step]
    known.update(dict.fromkeys(passed, remover))
    if remover is not None:
        raise Refused(f"{remover.path} removes the scale of its weights")


def _flattened(graph, step, layout):
    shape = graph.shapes[step.inputs[0]][1:]
    if None in shape:
        raise Refused(f"{step.path} flattens a tensor of unknown size")
    positions = math.prod(shape[:-1]) * layout.positions
    return dataclasses.replace(layout, positions=positions)


def _reshaped(graph, step, layout):
    before = graph.shapes[step.inputs[0]][1:]
    after = graph.shapes[step.outputs[0]][1:]
    if None not in before and None not in after:
        if after[-1:] == before[-1:]:
            return layout
        if len(after) == 1:
            return _flattened(graph, step, layout)
    raise Refused(f"{step.path} reshapes the channels")


def _why_not(step):
    operation = step.operation
    kind = type(operation).__name__
    if traits.is_exactly(operation, traits.MERGING) or (
        traits.merging_operation(operation)
    ):
        return f"its output is merged with others in {step.path} ({kind})"
    if traits.is_exactly(operation, layers.Concatenate):
        return f"its output is concatenated with others in {step.path}"
    if traits.is_exactly(operation, traits.NOISE):
        return f"{step.path} ({kind}) adds noise of a fixed scale"
    return (
        f"{step.path} ({kind}) is not known to be positively homogeneous in "
        "every channel"
    )
