"""Pairs of layers whose weights can be rescaled against each other."""

import dataclasses

import keras
from keras import layers

from keras_wd.decays.units import HomogeneousUnits
from keras_wd.graph import traits
from keras_wd.graph.homogeneity import WEIGHTED
from keras_wd.graph.homogeneity import Layout
from keras_wd.graph.homogeneity import Refused
from keras_wd.graph.homogeneity import only_reader
from keras_wd.graph.homogeneity import pass_through
from keras_wd.graph.homogeneity import refuse_activation
from keras_wd.graph.homogeneity import refuse_normalization_after
from keras_wd.graph.homogeneity import refuse_sharing
from keras_wd.graph.homogeneity import refuse_unusual_call
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step
from keras_wd.graph.structure import read
from keras_wd.where import paths_of


def homogeneous_units(model: keras.Model) -> list[HomogeneousUnits]:
    """Pairs of layers joined by positively homogeneous operations only.

    Unit i of a pair has input weights `w_i` (with its bias) and output
    weights `v_i`; scaling `w_i` by c > 0 and `v_i` by 1/c changes nothing.
    Pairs are disjoint and taken greedily along the computation: layers 1 and
    2, 3 and 4, and so on.

    Paired: Dense and convolutions (1D, 2D, 3D, strided or dilated, not
    grouped), also a convolution and a Dense layer behind `Flatten` or global
    pooling. In between: ReLU, LeakyReLU, PReLU, linear activations; maximum
    and average pooling, zero padding, cropping, upsampling; `Dropout` and
    `SpatialDropout`; `Reshape` that leaves the last axis alone; depthwise
    convolutions, whose bias scales with the unit.

    Batch normalization in between: its output does not change when the layer
    before it is rescaled, so the weights of that layer are no part of the
    unit. The unit is `gamma * normalized + beta`, which is homogeneous in
    gamma and beta, in training and at inference: `w_i = gamma_i` (a single
    number) with the bias `beta_i`. Without a scale there is nothing to pair.
    A layer whose own output is normalized further on is never the output
    layer of a pair: its scale does not matter, so no penalty on it has a
    minimum.

    Left alone: layers whose output goes to more than one place (residual
    joins, concatenations), shared layers, frozen layers, `channels_first`,
    and everything else that is not known to be homogeneous. `explain` says
    why.

    Args:
        model: a built Sequential or Functional model, nested or not.

    Returns:
        The pairs, by the paths of their weights: what `decays.PathNorm`
        takes. Pairs that follow each other through homogeneous operations
        are neighbours in the list, with `biases_before` set.

    Raises:
        ValueError: if the structure of the model cannot be read.

    >>> import keras
    >>> from keras_wd import graph
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, "relu", name="hidden"),
    ...     keras.layers.Dense(2, name="output"),
    ... ])
    >>> [pair.kernels for pair in graph.homogeneous_units(model)]
    [('hidden/kernel', 'output/kernel')]

    Source: Yang et al., 2022, "PathProx: A Proximal Gradient Algorithm for
    Weight Decay Regularized Deep Neural Networks", the grouping of layers.
    """
    pairs, _ = find_pairs(read(model))
    return named_units(pairs, model)


@dataclasses.dataclass(eq=False)
class Pair:
    """Two layers of a graph and what is between them.

    Attributes:
        source: the step of the input layer.
        carrier: the step whose weights are `w`: the input layer, or a batch
            normalization after it.
        target: the step of the output layer.
        between: the steps between source and target.
        layout: how units lie along the rows of the output kernel.
        inner: the steps between whose biases scale with the unit.
        joined: None, or the steps between the previous pair of the list and
            this one whose biases scale with what comes from there.
    """

    source: Step
    carrier: Step
    target: Step
    between: list[Step]
    layout: Layout
    inner: list[Step]
    joined: list[Step] | None = None


def find_pairs(graph: Graph) -> tuple[list[Pair], dict[Step, str]]:
    """All pairs, and for every unpaired layer with a kernel the reason."""
    pairs, reasons, taken, known = [], {}, set(), {}
    for step in graph.steps:
        if not traits.is_exactly(step.operation, WEIGHTED) or step in taken:
            continue
        try:
            pair = _pair_from(graph, step, known)
            if pair.target in taken:
                raise Refused(f"{pair.target.path} is in a pair already")
        except Refused as refusal:
            reasons[step] = str(refusal)
            continue
        taken |= {pair.source, pair.target}
        pairs.append(pair)
    return _in_chains(graph, pairs), reasons


def named_units(
    pairs: list[Pair], model: keras.Model
) -> list[HomogeneousUnits]:
    """The weights of pairs by paths that no other variable of `model` has."""
    variables = list(model.trainable_variables)
    used = [
        variable
        for pair in pairs
        for variable in (
            *_input_weights(pair.carrier),
            *_input_weights(pair.target),
            *(step.operation.bias for step in pair.inner),
            *(step.operation.bias for step in pair.joined or ()),
        )
        if variable is not None
    ]
    patterns = paths_of(used, variables).patterns if used else ()
    names = {id(v): name for v, name in zip(used, patterns, strict=True)}

    def name(variable):
        return None if variable is None else names[id(variable)]

    def biases(steps):
        found = [getattr(step.operation, "bias", None) for step in steps]
        return tuple(name(bias) for bias in found if bias is not None)

    return [
        HomogeneousUnits(
            input_kernel=name(_input_weights(pair.carrier)[0]),
            input_bias=name(_input_weights(pair.carrier)[1]),
            output_kernel=name(pair.target.operation.kernel),
            output_bias=name(pair.target.operation.bias),
            inner_biases=biases(pair.inner),
            positions=pair.layout.positions,
            channels=pair.layout.channels,
            biases_before=None if pair.joined is None else biases(pair.joined),
        )
        for pair in pairs
    ]


def _input_weights(carrier):
    layer = carrier.operation
    if traits.is_exactly(layer, layers.BatchNormalization):
        return layer.gamma, layer.beta
    return layer.kernel, layer.bias


def _pair_from(graph, source, known):
    """The pair whose input layer is `source`."""
    _refuse_layer(graph, source)
    only_reader(graph, source.outputs[0])
    refuse_activation(source.operation)
    pair = Pair(source, source, source, [], Layout(), [])
    (tensor,) = source.outputs
    while True:
        step = only_reader(graph, tensor)
        if traits.is_exactly(step.operation, WEIGHTED):
            break
        pair.between.append(step)
        if traits.is_exactly(step.operation, layers.BatchNormalization):
            _refuse_batch_normalization(graph, step)
            pair.carrier, pair.layout, pair.inner = step, Layout(), []
        else:
            pair.layout = pass_through(graph, step, pair.layout)
            if traits.is_exactly(step.operation, traits.DEPTHWISE):
                _refuse_frozen(step, step.operation.bias)
                pair.inner.append(step)
        (tensor,) = step.outputs
    pair.target = step
    try:
        _refuse_layer(graph, step)
        refuse_normalization_after(graph, step, known)
    except Refused as refusal:
        raise Refused(
            f"{step.path} cannot be its output layer: {refusal}"
        ) from refusal
    return pair


def _refuse_layer(graph, step):
    """Raise unless a layer's kernel is one of a pair by itself."""
    layer = step.operation
    refuse_unusual_call(step)
    refuse_sharing(graph, step)
    reason = traits.changed_weights(layer)
    if reason:
        raise Refused(reason)
    _refuse_frozen(step, layer.kernel)
    _refuse_frozen(step, layer.bias)
    if getattr(layer, "groups", 1) != 1:
        raise Refused(f"{step.path} is a grouped convolution")


def _refuse_frozen(step, variable):
    if variable is not None and not (
        step.operation.trainable and variable.trainable
    ):
        raise Refused(f"{step.path} is not trainable")


def _refuse_batch_normalization(graph, step):
    layer = step.operation
    refuse_unusual_call(step)
    refuse_sharing(graph, step)
    if layer.axis not in (-1, len(graph.shapes[step.inputs[0]]) - 1):
        raise Refused(f"{step.path} does not normalize the last axis")
    if not layer.scale:
        raise Refused(
            f"{step.path} removes the scale of its weights and has none of "
            "its own (scale=False)"
        )
    _refuse_frozen(step, layer.gamma)


def _in_chains(graph, pairs):
    """The pairs, with those that follow each other as neighbours."""
    by_source = {pair.source: pair for pair in pairs}
    following = {}
    for pair in pairs:
        found = _next_pair(graph, pair, by_source)
        if found is not None:
            following[pair] = found
    ordered = []
    for pair in pairs:
        if pair.joined is not None:
            continue
        while pair is not None:
            ordered.append(pair)
            pair = following.get(pair)
    return ordered


def _next_pair(graph, pair, by_source):
    """The pair that homogeneous operations lead to, or None."""
    passed = []
    step = pair.target
    try:
        refuse_activation(step.operation)
        while True:
            step = only_reader(graph, step.outputs[0])
            found = by_source.get(step)
            if found is not None:
                if found.carrier is not step:
                    return None
                found.joined = passed
                return found
            if traits.is_exactly(step.operation, WEIGHTED):
                _refuse_layer(graph, step)
                refuse_activation(step.operation)
            else:
                pass_through(graph, step, Layout())
            if traits.is_exactly(
                step.operation, (*WEIGHTED, *traits.DEPTHWISE)
            ):
                _refuse_frozen(step, step.operation.bias)
                passed.append(step)
    except Refused:
        return None
