"""How large a model is, and how long it takes."""

import dataclasses
import gzip
import math
import os
import statistics
import tempfile
import time

import keras
import numpy as np
from keras import layers

from keras_wd.graph import kinds
from keras_wd.graph.read import Graph

_COUNTED = (
    layers.Dense,
    *kinds.CONVOLUTIONS,
    *kinds.DEPTHWISE,
)
_ROUNDS = 15
_SECONDS = 5.0
_INDEX_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The size of a model.

    Attributes:
        units: of all Dense and convolution layers.
        parameters: number of weights.
        multiply_adds: for one example, in Dense, convolution and depthwise
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


def measure(model: keras.Model, graph: Graph) -> Sizes:
    """The sizes of a model; its graph is what `read.read` returns."""
    weights = [np.asarray(variable) for variable in model.weights]
    return Sizes(
        units=sum(
            step.operation.kernel.shape[-1]
            for step in graph.steps
            if kinds.is_exactly(step.operation, _COUNTED)
            and not kinds.is_exactly(step.operation, kinds.DEPTHWISE)
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


def multiply_adds(graph: Graph) -> int | None:
    """Multiplications with a kernel for one example; None if not fixed."""
    total = 0
    for step in graph.steps:
        if kinds.is_exactly(step.operation, _COUNTED):
            positions = graph.shapes[step.outputs[0]][1:-1]
            if None in positions:
                return None
            total += math.prod((*positions, *step.operation.kernel.shape))
    return int(total)


def not_counted(graph: Graph) -> list[str]:
    """Layers with kernels whose multiply-adds are not counted."""
    return [
        step.path
        for step in graph.steps
        if not kinds.is_exactly(step.operation, _COUNTED)
        and any(
            len(variable.shape) > 1
            for variable in getattr(step.operation, "weights", [])
        )
        and not kinds.is_exactly(step.operation, layers.PReLU)
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
    """Median time of one prediction of each model, in alternating rounds.

    At most fifteen rounds after two to warm up; no round starts after five
    seconds but the first three.
    """
    for model in models.values():
        for _ in range(2):
            model.predict_on_batch(batch)
    seconds = {name: [] for name in models}
    start = time.perf_counter()
    for done in range(_ROUNDS):
        if done >= 3 and time.perf_counter() - start > _SECONDS:
            break
        for name, model in models.items():
            before = time.perf_counter()
            model.predict_on_batch(batch)
            seconds[name].append(time.perf_counter() - before)
    return {
        name: 1e3 * statistics.median(times) for name, times in seconds.items()
    }
