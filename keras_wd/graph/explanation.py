"""Why layers are paired, or are not, and what decay of a weight does."""

import dataclasses

import keras
from keras import layers

from keras_wd.graph import traits
from keras_wd.graph.homogeneity import WEIGHTED
from keras_wd.graph.invariance import effects
from keras_wd.graph.pairs import find_pairs
from keras_wd.graph.structure import read
from keras_wd.tables import table

_IN_BETWEEN = (layers.BatchNormalization, layers.PReLU, *traits.DEPTHWISE)


@dataclasses.dataclass(frozen=True)
class LayerRole:
    """What a layer is in the pairs of a model.

    Attributes:
        layer: its name, with the nested models before it.
        kind: its class.
        pair: the number of its pair, from 1; None for no pair.
        role: what it is there: "input", "output", "units", "between".
        reason: the other layer of the pair, or why there is none.
    """

    layer: str
    kind: str
    pair: int | None
    role: str
    reason: str


@dataclasses.dataclass(frozen=True)
class WeightEffect:
    """What decay of a weight does.

    Attributes:
        weight: its path.
        effect: "function": decay regularizes what the model computes;
            "learning rate": the scale of the weight does not matter, and
            decay only sets the effective learning rate; "nothing": the weight
            does not matter at all; "unknown": one of these, but a layer or
            operation on the way is not understood.
        reason: why.
    """

    weight: str
    effect: str
    reason: str


class Explanation:
    """What is known of a model; `str` makes two tables.

    Attributes:
        rows: a `LayerRole` for every layer.
        weights: a `WeightEffect` for every trainable weight.
    """

    def __init__(self, rows: list[LayerRole], weights: list[WeightEffect]):
        self.rows = rows
        self.weights = weights

    def __str__(self) -> str:
        weights = table(
            ("weight", "decay acts on", "because"),
            [(row.weight, row.effect, row.reason) for row in self.weights],
        )
        return f"{self._layers()}\n\n{weights}"

    def _layers(self):
        return table(
            ("layer", "kind", "pair", "role", "with, or why not"),
            [
                (
                    row.layer,
                    row.kind,
                    "-" if row.pair is None else str(row.pair),
                    row.role or "-",
                    row.reason,
                )
                for row in self.rows
            ],
        )

    __repr__ = __str__


def explain(model: keras.Model) -> Explanation:
    """What layers are paired with, and what decay of their weights does.

    Every layer: in which pair of `homogeneous_units` it is, or why in none.
    Every weight: whether decay regularizes the function there or, as
    `scale_invariant` finds, only sets the effective learning rate; or that
    this is not known.

    Args:
        model: a built Sequential or Functional model.

    Returns:
        An object that prints as two tables. Its `rows` are `LayerRole`s, its
        `weights` are `WeightEffect`s.

    Raises:
        ValueError: if the structure of the model cannot be read.

    >>> import keras
    >>> from keras_wd import graph
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, "relu", use_bias=False, name="hidden"),
    ...     keras.layers.Dense(2, name="output"),
    ... ], name="net")
    >>> print(graph.explain(model))
    layer   kind   pair  role    with, or why not
    hidden  Dense  1     input   output layer: output
    output  Dense  1     output  input layer: hidden
    <BLANKLINE>
    weight             decay acts on  because
    net/hidden/kernel  function       it reaches the outputs
    net/output/kernel  function       it reaches the outputs
    net/output/bias    function       it reaches the outputs
    """
    graph = read(model)
    pairs, reasons = find_pairs(graph)
    roles = {}
    for number, pair in enumerate(pairs, 1):
        ends = f"{pair.source.path} and {pair.target.path}"
        for step in pair.between:
            roles[step] = (number, "between", ends)
        through = ""
        if pair.carrier is not pair.source:
            through = f", through the scale of {pair.carrier.path}"
            roles[pair.carrier] = (number, "units", ends)
        target = f"output layer: {pair.target.path}{through}"
        roles[pair.source] = (number, "input", target)
        roles[pair.target] = (
            number,
            "output",
            f"input layer: {pair.source.path}{through}",
        )
    # A shared layer has several steps and one row.
    rows = {}
    for step in graph.steps:
        if step.operation is not None and step.path not in rows:
            role = roles.get(step) or (None, "", _why_alone(step, reasons))
            kind = type(step.operation).__name__
            rows[step.path] = LayerRole(step.path, kind, *role)
    weights = [
        WeightEffect(effect.variable.path, effect.name, effect.reason)
        for effect in effects(graph)
    ]
    return Explanation(list(rows.values()), weights)


def _why_alone(step, reasons):
    operation = step.operation
    if traits.is_exactly(operation, WEIGHTED):
        return reasons[step]
    if not getattr(operation, "weights", []):
        return "has no weights, and is not between the layers of a pair"
    if traits.is_exactly(operation, _IN_BETWEEN):
        return "is not between the layers of a pair"
    return (
        f"{type(operation).__name__} has weights that are not known to form "
        "homogeneous units with those of another layer"
    )
