"""Which weights a following normalization makes scale invariant."""

import collections
import dataclasses
import heapq

import keras
import numpy as np
from keras import layers
from keras import ops

from keras_wd import backend
from keras_wd.graph import traits
from keras_wd.graph.homogeneity import NORMALIZATIONS
from keras_wd.graph.scale_propagation import LINEAR
from keras_wd.graph.scale_propagation import Reaction
from keras_wd.graph.scale_propagation import reaction_of
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import read
from keras_wd.where import paths_of

# Large, so that the epsilon of a normalization does not matter.
_FACTORS = (64.0, 128.0)
_TOLERANCE = 1e-3


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
        name: "function", "learning rate", "nothing" or "unknown".
        reason: why.
    """

    variable: keras.Variable
    name: str
    reason: str


def effects(graph: Graph) -> list[Effect]:
    """The effect of decay on every trainable weight, in order."""
    follower, found = Follower(graph), {}
    for step in graph.steps:
        layer = step.operation
        for variable in getattr(layer, "trainable_variables", ()):
            if id(variable) not in found:
                found[id(variable)] = _effect(follower, layer, variable)
    return list(found.values())


def _effect(follower, layer, variable):
    role = _role(layer, variable)
    if role is None:
        reason = traits.changed_weights(layer) or (
            f"how {type(layer).__name__} depends on it is not known"
        )
        return Effect(variable, "unknown", reason)
    reached = follower.follow(layer, role)
    if reached.state == "unknown":
        return Effect(variable, "unknown", reached.reason)
    if reached.state != "fixed":
        return Effect(variable, "function", reached.reason)
    removed = " and ".join(dict.fromkeys(reached.removed_by))
    if role == "offset":
        return Effect(variable, "nothing", f"{removed} removes it")
    return Effect(variable, "learning rate", f"{removed} removes its scale")


# By attribute, what a weight is to what its layer makes.
_ROLES = {
    "kernel": "scale",
    "embeddings": "scale",
    "depthwise_kernel": "scale",
    "pointwise_kernel": "scale",
    "gamma": "scale",
    "bias": "offset",
    "beta": "offset",
    "alpha": "other",
}
_WITH_ROLES = (*LINEAR, *NORMALIZATIONS, layers.Embedding, layers.PReLU)
_GATED = (layers.GRU, layers.LSTM)


def _role(layer, variable):
    """How a layer's output depends on its weight; None if not known."""
    if traits.changed_weights(layer):
        return None
    if traits.is_exactly(layer, _GATED):
        return "other"
    if traits.is_exactly(layer, _WITH_ROLES) or traits.is_layer_scale(layer):
        for name, role in _ROLES.items():
            if getattr(layer, name, None) is variable:
                return role
    return None


@dataclasses.dataclass(frozen=True)
class Reached:
    """What scaling a weight does to the outputs of a model.

    Attributes:
        state: "fixed", "changed" or "unknown".
        reason: why, if it is not fixed.
        removed_by: the paths of the steps that remove it.
    """

    state: str
    reason: str = ""
    removed_by: tuple[str, ...] = ()


class Follower:
    """Follows the scaling of weights through a graph.

    Only what a weight moves is visited, and it ends where the answer is
    clear. Where one tensor alone is moved, the rest of the way is that of any
    other weight that moves it alike, and is kept: all weights of a model take
    about as long as its steps.
    """

    def __init__(self, graph: Graph):
        self._graph = graph
        self._order = {step: i for i, step in enumerate(graph.steps)}
        self._calls = collections.defaultdict(list)
        for step in graph.steps:
            self._calls[id(step.operation)].append(self._order[step])
        self._known: dict[tuple[int, str], Reached] = {}

    def follow(self, layer: keras.Layer, role: str) -> Reached:
        """What becomes of the outputs when a weight is scaled.

        Args:
            layer: whose weight it is.
            role: "scale" for a factor of its output, "offset" for a summand
                of every channel, "other" for neither.
        """
        graph, states, removed, passed = self._graph, {}, [], []
        calls = list(self._calls[id(layer)])
        last_call, unknown = max(calls), None
        waiting, seen = list(calls), set(calls)
        heapq.heapify(waiting)
        unread = {}
        while waiting:
            number = heapq.heappop(waiting)
            step = graph.steps[number]
            moved = role if step.operation is layer else None
            inputs = [states.get(tensor, "fixed") for tensor in step.inputs]
            if "unknown" in inputs:
                reaction = Reaction("unknown")
            else:
                reaction = reaction_of(graph, step, inputs, moved)
            state = reaction.state
            for tensor in dict.fromkeys(step.inputs):
                if tensor in unread:
                    unread[tensor] -= 1
                    if not unread[tensor]:
                        del unread[tensor]
            if state == "changed":
                return self._keep(passed, Reached("changed", reaction.reason))
            if state == "fixed":
                if set(inputs) - {"fixed"}:
                    removed.append(step.path)
                continue
            if state == "unknown":
                unknown = unknown or reaction.reason
            for tensor in step.outputs:
                if tensor in graph.outputs and state != "unknown":
                    reached = Reached("changed", "it reaches the outputs")
                    return self._keep(passed, reached)
                states[tensor] = state
                readers = graph.consumers[tensor]
                if readers:
                    unread[tensor] = len(readers)
                for reader in readers:
                    place = self._order[reader]
                    if place not in seen:
                        seen.add(place)
                        heapq.heappush(waiting, place)
            alone = len(unread) == 1 and number >= last_call and not unknown
            if alone:
                (tensor,) = unread
                rest = self._known.get((tensor, states[tensor]))
                if rest is not None:
                    return self._keep(passed, rest, removed)
                passed.append(((tensor, states[tensor]), len(removed)))
        if unknown:
            return self._keep(passed, Reached("unknown", unknown))
        return self._keep(passed, Reached("fixed"), removed)

    def _keep(self, passed, reached, removed=()):
        """Note what becomes of the tensors on the way; the whole answer."""
        for key, before in passed:
            on_the_way = (*removed[before:], *reached.removed_by)
            self._known[key] = dataclasses.replace(
                reached, removed_by=on_the_way
            )
        return dataclasses.replace(
            reached, removed_by=(*removed, *reached.removed_by)
        )


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
