"""How large a model is, and how long it takes."""

import dataclasses
import functools
import gzip
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from collections.abc import Mapping

import keras
import numpy as np
from keras import layers

from keras_wd.graph import traits
from keras_wd.graph.channel_rules import ATTENTION
from keras_wd.graph.channel_rules import WEIGHTED
from keras_wd.graph.channel_rules import is_einsum_of_dense
from keras_wd.graph.channel_rules import is_weighted
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step
from keras_wd.graph.structure import read
from keras_wd.tables import table

_COUNTED = (*WEIGHTED, *traits.DEPTHWISE, layers.EinsumDense)
_ROUNDS = 15
_SECONDS = 5.0
_INDEX_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The size of a model.

    Attributes:
        units: of all Dense and convolution layers.
        parameters: number of weights.
        multiply_adds: for one example, in Dense, convolution and attention
            layers; None if the size of an input is not fixed.
        file_bytes: of the `.keras` file without an optimizer; None if a layer
            cannot be saved.
        dense_bytes: of the weights as they are.
        csr_bytes: of the weights with kernels as compressed sparse rows, a
            4-byte index beside every value that is not zero.
        gzip_bytes: of the weights compressed by gzip.
    """

    units: int
    parameters: int
    multiply_adds: int | None
    file_bytes: int | None
    dense_bytes: int
    csr_bytes: int
    gzip_bytes: int


@dataclasses.dataclass(frozen=True)
class LayerSize:
    """The size of a layer.

    Attributes:
        layer: its name, with the nested models before it.
        kind: its class.
        parameters: number of weights.
        multiply_adds: for one example, over all its calls; None if the size
            of an input is not fixed, or if it is not counted.
        bytes: of its weights.
    """

    layer: str
    kind: str
    parameters: int
    multiply_adds: int | None
    bytes: int


class ModelSizes:
    """The sizes of a model by layer; `str` makes a table.

    Attributes:
        rows: a `LayerSize` for every layer with weights.
        parameters: of the whole model, each weight once.
        multiply_adds: for one example; None if not fixed.
        bytes: of all weights.
        not_counted: layers with kernels whose multiply-adds are not counted.
    """

    def __init__(self, rows, parameters, adds, size, uncounted):
        self.rows = rows
        self.parameters = parameters
        self.multiply_adds = adds
        self.bytes = size
        self.not_counted = uncounted

    def __str__(self) -> str:
        lines = [
            (row.layer, row.kind, row.parameters, row.multiply_adds, row.bytes)
            for row in self.rows
        ]
        whole = (self.parameters, self.multiply_adds, self.bytes)
        lines.append(("all", "", *whole))
        return table(
            ("layer", "kind", "parameters", "multiply-adds", "bytes"),
            [
                (*line[:2], *("-" if n is None else f"{n:,}" for n in line[2:]))
                for line in lines
            ],
        )

    __repr__ = __str__


def sizes_of(model: keras.Model) -> ModelSizes:
    """Parameters, multiply-adds and bytes of a model by layer.

    Multiply-adds are those of products with kernels (Dense, convolutions of
    all kinds, EinsumDense) and of attention, for one example: half of the
    floating-point operations that compilers count. Additions of biases,
    normalizations and activations are not among them.

    Args:
        model: a built Sequential or Functional model, nested or not.

    Returns:
        An object that prints as a table; its `rows` are `LayerSize`s.

    Raises:
        ValueError: if the structure of the model cannot be read.

    >>> import keras
    >>> from keras_wd import graph
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)
    ... ])
    >>> graph.sizes(model).multiply_adds
    48
    """
    graph, rows = read(model), {}
    uncounted = not_counted(graph)
    for step in graph.steps:
        weights = getattr(step.operation, "weights", [])
        if not weights:
            continue
        adds = multiply_adds_of(graph, step)
        if step.path in uncounted:
            adds = None
        if step.path in rows and adds is not None:
            adds += rows[step.path].multiply_adds or 0
        rows[step.path] = LayerSize(
            step.path,
            type(step.operation).__name__,
            sum(math.prod(v.shape) for v in weights),
            adds,
            sum(np.asarray(v).nbytes for v in weights),
        )
    return ModelSizes(
        list(rows.values()),
        model.count_params(),
        multiply_adds(graph),
        sum(np.asarray(v).nbytes for v in model.weights),
        tuple(uncounted),
    )


def measure(model: keras.Model, graph: Graph) -> Sizes:
    """The sizes of a model; its graph is what `read.read` returns."""
    weights = [np.asarray(variable) for variable in model.weights]
    return Sizes(
        units=sum(
            units_of(step.operation)
            for step in graph.steps
            if is_weighted(step.operation)
        ),
        parameters=model.count_params(),
        multiply_adds=multiply_adds(graph),
        file_bytes=_file_bytes(model),
        dense_bytes=sum(array.nbytes for array in weights),
        csr_bytes=sum(map(csr_bytes, weights)),
        gzip_bytes=len(
            gzip.compress(b"".join(array.tobytes() for array in weights), 6)
        ),
    )


def units_of(layer: keras.Layer) -> int:
    """The units of a Dense or convolution layer."""
    if is_einsum_of_dense(layer):
        return layer.kernel.shape[-1]
    return layer.units if hasattr(layer, "units") else layer.filters


def multiply_adds(graph: Graph) -> int | None:
    """Multiplications with weights for one example; None if not fixed."""
    total = 0
    for step in graph.steps:
        count = multiply_adds_of(graph, step)
        if count is None:
            return None
        total += count
    return total


def multiply_adds_of(graph: Graph, step: Step) -> int | None:
    """Multiplications of a step for one example; None if not fixed.

    Of products with kernels and, in attention, of queries with keys and of
    scores with values. Zero for a step that is not counted.
    """
    layer = step.operation
    if traits.is_exactly(layer, ATTENTION):
        return _of_attention(graph, step)
    if not traits.is_exactly(layer, _COUNTED):
        return 0
    made = graph.shapes[step.outputs[0]][1:]
    positions = made[:-1]
    if traits.is_exactly(layer, traits.TRANSPOSED):
        positions = graph.shapes[step.inputs[0]][1:-1]
    if traits.is_exactly(layer, layers.EinsumDense):
        read = graph.shapes[step.inputs[0]]
        positions = _not_in_kernel(layer.equation, read, made)
    if None in positions:
        return None
    if traits.is_exactly(layer, traits.SEPARABLE):
        size = math.prod(layer.depthwise_kernel.shape) + math.prod(
            layer.pointwise_kernel.shape
        )
    else:
        size = math.prod(layer.kernel.shape)
    return int(math.prod(positions) * size)


def _not_in_kernel(equation, read, made):
    """The sizes of what an EinsumDense makes, for axes it does not mix."""
    left, right = equation.replace(" ", "").split("->")
    before, kernel = left.split(",")
    # Keras takes what an output shape does not say for unknown.
    known = dict(_sizes_by_axis(before, read))
    return [
        known.get(axis) if n is None else n
        for axis, n in _sizes_by_axis(right, (1, *made))
        if axis not in list(kernel)
    ]


def _sizes_by_axis(axes, sizes):
    """(letter, size) of every axis; numbers for those of an ellipsis."""
    letters = axes.replace("...", "")
    others = list(range(len(sizes) - len(letters)))
    before = axes.split("...")[0] if others else letters
    names = [*before, *others, *letters[len(before) :]]
    return zip(names, sizes, strict=True)


def _of_attention(graph, step):
    layer = step.operation
    query, value = (graph.shapes[tensor] for tensor in (step.inputs * 2)[:2])
    if None in query[1:-1] or None in value[1:-1]:
        return None
    asked, answered = math.prod(query[1:-1]), math.prod(value[1:-1])
    projections = 0
    for name, positions in (
        ("query", asked),
        ("key", answered),
        ("value", answered),
        ("output", asked),
    ):
        kernel = getattr(layer, f"_{name}_dense").kernel
        projections += positions * math.prod(kernel.shape)
    keys = math.prod(layer._query_dense.kernel.shape[1:])
    values = math.prod(layer._output_dense.kernel.shape[:-1])
    return int(projections + asked * answered * (keys + values))


def not_counted(graph: Graph) -> list[str]:
    """Layers with kernels whose multiply-adds are not counted."""
    free = (layers.PReLU, layers.Embedding, layers.Normalization)
    return [
        step.path
        for step in graph.steps
        if not traits.is_exactly(step.operation, (*_COUNTED, *ATTENTION, *free))
        and any(
            len(variable.shape) > 1
            for variable in getattr(step.operation, "weights", [])
        )
    ]


def csr_bytes(weights: np.ndarray) -> int:
    """Bytes of an array as compressed sparse rows, if it has rank 2 or more."""
    if weights.ndim < 2:
        return weights.nbytes
    rows = math.prod(weights.shape[:-1])
    entries = np.count_nonzero(weights)
    per_entry = weights.itemsize + _INDEX_BYTES
    return int(entries * per_entry + (rows + 1) * _INDEX_BYTES)


def _file_bytes(model):
    """None if a layer of the model cannot be saved."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        try:
            model.save(path)
        except Exception:  # whatever the `get_config` of a layer raises
            return None
        return os.path.getsize(path)


def milliseconds(
    models: dict[str, keras.Model], batch: object
) -> dict[str, float]:
    """Median time of one prediction of each model, after two to warm up."""
    predictions = {
        name: functools.partial(model.predict_on_batch, batch)
        for name, model in models.items()
    }
    for predict in predictions.values():
        for _ in range(2):
            predict()
    return median_milliseconds(predictions)


def median_milliseconds(
    functions: Mapping[str, Callable[[], object]],
) -> dict[str, float]:
    """Median time of a call of each function, in alternating rounds.

    At most fifteen rounds; none starts after five seconds but the first three.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    start = time.perf_counter()
    for done in range(_ROUNDS):
        if done >= 3 and time.perf_counter() - start > _SECONDS:
            break
        for name, function in functions.items():
            before = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - before)
    return {
        name: 1e3 * statistics.median(times) for name, times in seconds.items()
    }
