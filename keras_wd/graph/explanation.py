"""Why layers are paired, or are not."""

import dataclasses

import keras
from keras import layers

from keras_wd.graph import kinds
from keras_wd.graph.homogeneity import WEIGHTED
from keras_wd.graph.pairs import find_pairs
from keras_wd.graph.table import table
from keras_wd.graph.walk import read

_IN_BETWEEN = (layers.BatchNormalization, layers.PReLU, *kinds.DEPTHWISE)


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


class Explanation:
    """The roles of all layers; `str` makes a table, `rows` is the data."""

    def __init__(self, rows: list[LayerRole]):
        self.rows = rows

    def __str__(self) -> str:
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
    """Every layer of a model: paired with what, or why not.

    Args:
        model: a built Sequential or Functional model.

    Returns:
        An object that prints as a table; its `rows` are `LayerRole`s.

    Raises:
        ValueError: if the structure of the model cannot be read.

    >>> import keras
    >>> from keras_wd import graph
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, "relu", name="hidden"),
    ...     keras.layers.Dense(2, name="output"),
    ... ])
    >>> print(graph.explain(model))
    layer   kind   pair  role    with, or why not
    hidden  Dense  1     input   output layer: output
    output  Dense  1     output  input layer: hidden
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
    return Explanation(list(rows.values()))


def _why_alone(step, reasons):
    operation = step.operation
    if kinds.is_exactly(operation, WEIGHTED):
        return reasons[step]
    if not getattr(operation, "weights", []):
        return "has no weights, and is not between the layers of a pair"
    if kinds.is_exactly(operation, _IN_BETWEEN):
        return "is not between the layers of a pair"
    return (
        f"{type(operation).__name__} has weights that are not known to form "
        "homogeneous units with those of another layer"
    )
