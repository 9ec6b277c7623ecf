"""Which weights a following normalization makes scale invariant."""

import dataclasses

import keras
import numpy as np
from keras import layers
from keras import ops

from keras_wd import backend
from keras_wd.graph import kinds
from keras_wd.graph.reactions import reaction_of
from keras_wd.graph.read import Graph
from keras_wd.graph.read import Step
from keras_wd.graph.read import read
from keras_wd.where import paths_of

# Large, so that the epsilon of a normalization does not matter.
_FACTORS = (64.0, 128.0)
_TOLERANCE = 1e-3

_SCALING = (
    layers.Dense,
    layers.EinsumDense,
    layers.Embedding,
    *kinds.CONVOLUTIONS,
    *kinds.DEPTHWISE,
)


def scale_invariant(model: keras.Model, x: object = None) -> list[str]:
    """Weights whose scale the outputs do not depend on: `f(c w) = f(w)`.

    Found by structure: every way from the weight leads through operations
    that scale with it into a normalization, in training mode. The gradient of
    such a weight is orthogonal to it and shrinks as it grows, so decay does
    not limit the function; it keeps the effective learning rate up. A kernel
    whose bias does not vanish in the normalization (as it does where a batch
    normalization follows at once) is not invariant by itself. The epsilon of
    a normalization is neglected.

    Args:
        model: a built Sequential or Functional model.
        x: a batch of inputs to confirm the finding with: the outputs in
            training mode must not change when the weight is scaled. The model
            is left as it was.

    Returns:
        The ends of the weights' paths, as `where.paths` takes them; empty if
        there are none.

    Raises:
        ValueError: if the structure of the model cannot be read, or the
            outputs on `x` do change.

    >>> import keras
    >>> from keras_wd import graph
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, name="hidden"),
    ...     keras.layers.BatchNormalization(name="norm"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.Dense(2, name="output"),
    ... ])
    >>> graph.scale_invariant(model)
    ['hidden/kernel']

    Source: van Laarhoven, 2017, "L2 Regularization versus Batch and Weight
    Normalization", section 2.
    """
    variables = invariant_variables(model)
    if x is not None:
        _confirm(model, variables, x)
    if not variables:
        return []
    return list(paths_of(variables, model.trainable_variables).patterns)


def invariant_variables(model: keras.Model) -> list[keras.Variable]:
    """The variables that `scale_invariant` names."""
    return [
        effect.variable
        for effect in effects(read(model))
        if effect.name == "learning rate"
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Effect:
    """What decay of a weight does.

    Attributes:
        variable: the weight.
        name: "function", "learning rate" or "nothing".
        reason: why.
    """

    variable: keras.Variable
    name: str
    reason: str


def effects(graph: Graph) -> list[Effect]:
    """The effect of decay on every trainable weight, in order."""
    found = {}
    for step in graph.steps:
        layer = step.operation
        for variable in getattr(layer, "trainable_variables", ()):
            if id(variable) not in found:
                found[id(variable)] = _effect(graph, step, variable)
    return list(found.values())


def _effect(graph: Graph, step: Step, variable: keras.Variable) -> Effect:
    layer = step.operation
    role = _role(layer, variable)
    if role is None:
        kind = type(layer).__name__
        return Effect(
            variable, "function", f"{kind} is not known to scale with it"
        )
    reached = follow(graph, layer, role)
    if reached.state != "fixed":
        return Effect(variable, "function", reached.reason)
    removed = " and ".join(reached.removed_by)
    if role == "offset":
        return Effect(variable, "nothing", f"{removed} removes it")
    return Effect(variable, "learning rate", f"{removed} removes its scale")


def _role(layer, variable):
    """How a layer's output depends on its weight; None if not known."""
    if kinds.changed_weights(layer):
        return None
    if kinds.is_exactly(layer, _SCALING):
        kernels = ("kernel", "embeddings")
        if any(getattr(layer, k, None) is variable for k in kernels):
            return "scale"
        return "offset" if getattr(layer, "bias", None) is variable else None
    if kinds.is_exactly(layer, layers.BatchNormalization):
        return "scale" if layer.gamma is variable else "offset"
    return None


@dataclasses.dataclass(frozen=True)
class Reached:
    """What scaling a weight does to the outputs of a model."""

    state: str
    reason: str
    removed_by: tuple[str, ...]


def follow(graph: Graph, layer: keras.Layer, role: str) -> Reached:
    """Follow the scaling of a layer's weight through the graph.

    Args:
        graph: of the model.
        layer: whose weight is scaled.
        role: "scale" for a factor of its output, "offset" for a summand.
    """
    states, removed, reason = {}, [], ""
    for step in graph.steps:
        inputs = [states[tensor] for tensor in step.inputs]
        moved = role if step.operation is layer else None
        reaction = reaction_of(graph, step, inputs, moved)
        if reaction.state == "broken" and not reason:
            reason = reaction.reason
        if reaction.state == "fixed" and set(inputs) - {"fixed"}:
            removed.append(step.path)
        states.update((tensor, reaction.state) for tensor in step.outputs)
    ends = {states[tensor] for tensor in graph.outputs}
    if ends == {"fixed"}:
        return Reached("fixed", "", tuple(dict.fromkeys(removed)))
    return Reached("broken", reason or "it reaches the outputs", ())


def _confirm(model, variables, x):
    x = keras.tree.map_structure(ops.convert_to_tensor, x)
    for variable in variables:
        small, large = (_outputs(model, variable, x, f) for f in _FACTORS)
        change = np.max(np.abs(large - small)) / np.max(np.abs(small))
        if not change <= _TOLERANCE:
            raise ValueError(
                "`model` must not depend on the scale of "
                f"{variable.path}, by its structure. Received: outputs that "
                f"change by a part of {change:.1e} when it is doubled."
            )


def _outputs(model, variable, x, factor):
    """The outputs in training mode with a weight scaled; nothing is kept."""
    before = [backend.concrete_value(v) for v in model.variables]
    try:
        variable.assign(factor * backend.concrete_value(variable))
        outputs = keras.tree.flatten(model(x, training=True))
        return np.concatenate(
            [ops.convert_to_numpy(o).astype("float64").ravel() for o in outputs]
        )
    finally:
        for one, value in zip(model.variables, before, strict=True):
            one.assign(value)
