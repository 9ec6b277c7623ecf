"""Does a new model compute what the old one does?

A result that cannot be verified is not returned: the structure of a model can
be read wrongly, a layer can be copied wrongly, and the user would learn it
from worse predictions.
"""

import keras
import numpy as np
from keras import layers
from keras import ops

from keras_wd import backend
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import functional_of

_BATCH = 4
_UNKNOWN_SIZE = 12
# Of the largest output of an example: rounding, through a hundred layers
# that sum in another order.
_TOLERANCES: dict[str | None, float] = {
    "float64": 1e-7,
    "float32": 1e-3,
    "float16": 5e-2,
}
_COARSE = 0.2
_SEQUENTIAL_SCALES = (1.0, 30.0)


def examples(model: keras.Model, graph: Graph, batch: int = _BATCH) -> object:
    """A random batch that a model can be called on.

    Whole numbers for inputs that an embedding or a lookup reads, below its
    size; words of the vocabulary for strings; else normal numbers, of which
    half the examples are of the size of pixels.

    Args:
        model: whose inputs are wanted, in their structure.
        graph: what `read.read` says about it.
        batch: the number of examples.
    """
    rng = np.random.default_rng(0)
    entrances = [step for step in graph.steps if not step.inputs]
    arrays = [
        _example(graph, step, tensor, batch, rng)
        for step, tensor in zip(entrances, model.inputs, strict=False)
    ]
    return keras.tree.pack_sequence_as(_structure(model), arrays)


def _structure(model):
    """What the model is called on: a tensor, or a structure of them."""
    functional = functional_of(model)
    given = functional.input
    return given[0] if isinstance(given, list) and len(given) == 1 else given


def _example(graph, step, tensor, batch, rng):
    shape = [_UNKNOWN_SIZE if n is None else n for n in tensor.shape[1:]]
    shape = (tensor.shape[0] or batch, *shape)
    readers = list(_readers(graph, step))
    words = _words(readers)
    if tensor.dtype == "string" or words is not None:
        words = np.array(words if words else ["one", "two", "three"])
        drawn = words[rng.integers(len(words), size=shape)]
        if tensor.dtype != "string":
            drawn = drawn.astype(tensor.dtype)
        return ops.convert_to_tensor(drawn)
    count = _count(readers)
    if count is None and not keras.backend.is_float_dtype(tensor.dtype):
        count = 2
    if count is not None:
        drawn = rng.integers(max(count, 1), size=shape)
        return ops.cast(ops.convert_to_tensor(drawn), tensor.dtype)
    scales = np.resize(_SEQUENTIAL_SCALES, shape[0])
    drawn = rng.normal(size=shape) * scales.reshape(-1, *[1] * len(shape[1:]))
    return ops.cast(
        ops.convert_to_tensor(drawn.astype("float32")), tensor.dtype
    )


def _readers(graph, step):
    """The layers that read an input, past entrances of nested models."""
    for tensor in step.outputs:
        for reader in graph.consumers[tensor]:
            if reader.operation is None:
                yield from _readers(graph, reader)
            else:
                yield reader.operation


def _words(readers):
    """The vocabulary of a lookup among layers; None without one."""
    for reader in readers:
        if isinstance(reader, (layers.StringLookup, layers.IntegerLookup)):
            words = list(reader.get_vocabulary(include_special_tokens=False))
            return words or None
        if isinstance(reader, layers.TextVectorization):
            return reader.get_vocabulary(include_special_tokens=False) or None
    return None


def _count(readers):
    """How many tokens an embedding among layers knows; None without one."""
    counts = []
    for reader in readers:
        for part in (reader, *getattr(reader, "_layers", ())):
            if isinstance(part, layers.Embedding):
                counts.append(part.input_dim)
        if isinstance(reader, layers.CategoryEncoding):
            counts.append(reader.num_tokens)
    return min(counts) if counts else None


def outputs(model: keras.Model, x: object) -> list[np.ndarray]:
    """All outputs at inference in float64; the model is left as it was."""
    before = [
        (variable, backend.concrete_value(variable))
        for variable in model.non_trainable_variables
    ]
    try:
        made = keras.tree.flatten(model(x, training=False))
        return [as_array(output) for output in made]
    finally:
        for variable, value in before:
            variable.assign(value)


def as_array(output: object) -> np.ndarray:
    """An output in float64."""
    return np.asarray(ops.convert_to_numpy(output)).astype("float64")


def difference(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference of an example, as a part of its largest entry.

    Entries that are not finite must be so in both.
    """
    if expected.shape != found.shape:
        return np.inf
    expected = expected.reshape(len(expected), -1)
    found = found.reshape(len(found), -1)
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(found)):
        return np.inf
    expected, found = np.where(finite, [expected, found], 0)
    scales = np.abs(expected).max(axis=1, keepdims=True, initial=0)
    apart = np.abs(expected - found)
    return float((apart / np.where(scales > 0, scales, 1)).max(initial=0))


def verify(
    before: keras.Model, after: keras.Model, graph: Graph, x: object = None
) -> None:
    """Raise unless two models compute the same.

    Args:
        before: the model as it is to be.
        after: the model to check.
        graph: of `before`.
        x: a batch to compare them on; random inputs of the kinds that the
            model takes for None.

    Raises:
        ValueError: if the outputs differ, or cannot be compared.
    """
    batch = x
    try:
        if batch is None:
            batch = examples(before, graph)
        expected = outputs(before, batch)
    except Exception as error:
        what = "random inputs" if x is None else "x"
        said = " ".join(str(error).split())[:300]
        raise ValueError(
            f"`model` must compute outputs from {what}, to verify that the "
            f"smaller model has the same. Received: {type(error).__name__}: "
            f"{said}. Pass `x=`, a batch of its inputs."
        ) from error
    if not any(np.isfinite(output).any() for output in expected):
        raise ValueError(
            "`model` must have finite outputs, to verify that the smaller "
            "model has the same. Received: none. Pass `x=`, a batch of its "
            "inputs on which it has."
        )
    found = outputs(after, batch)
    allowed = tolerance(before)
    # `graph` was read from it.
    names = functional_of(before).output_names  # type: ignore[union-attr]
    for name, wanted, made in zip(names, expected, found, strict=True):
        apart = difference(wanted, made)
        if not apart <= allowed:
            raise ValueError(
                "`model` must have a structure that is read correctly. "
                f"Received: a smaller model whose output {name!r} differs by "
                f"{apart:.1e} of its largest entry, where {allowed:.0e} is "
                f"rounding. It is not returned. {_culprit(before, after)}"
            )


def tolerance(model: keras.Layer) -> float:
    """How far outputs may be apart by rounding, see `difference`."""
    parts = [model, *model._flatten_layers()]
    kinds = {getattr(part, "compute_dtype", None) for part in parts}
    if {"bfloat16", "int8"} & kinds or any(
        getattr(part, "quantization_mode", None) for part in parts
    ):
        return _COARSE
    return max(_TOLERANCES.get(kind, 0) for kind in kinds) or 1e-3


def _culprit(before, after):
    """Which layers cannot be told apart by their classes from those of Keras.

    Kept short: the layers whose classes are not Keras's own are the ones a
    reader of the message can do something about.
    """
    foreign = sorted(
        {
            f"{part.name} ({type(part).__name__})"
            for part in before._flatten_layers(include_self=False)
            if type(part).__module__.split(".")[0] != "keras"
        }
    )
    if not foreign:
        return "Please report it with the model's summary."
    return f"Layers that Keras does not know: {', '.join(foreign[:5])}."
