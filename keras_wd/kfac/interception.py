"""Watching the calls of layers while a model runs.

For the time of one forward pass the `call` of every known layer class is
replaced by one that asks an observer. This reaches nested models, layers
inside layers (`MultiHeadAttention`) and subclassed models alike, and needs
neither a list of layers nor a change of the model.
"""

import contextlib
import functools
import threading
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import keras

from keras_wd.kfac.convolutions import ConvReader
from keras_wd.kfac.convolutions import DepthwiseReader
from keras_wd.kfac.einsum import EinsumReader
from keras_wd.kfac.embedding import EmbeddingReader
from keras_wd.kfac.normalization import NormalizationReader
from keras_wd.kfac.readers import DenseReader
from keras_wd.kfac.readers import Reader

_FLAGS = {"scale": False, "center": False}

READERS: dict[Any, Reader] = {
    keras.layers.Dense: DenseReader(),
    keras.layers.EinsumDense: EinsumReader(),
    keras.layers.Embedding: EmbeddingReader(),
    keras.layers.Conv1D: ConvReader(),
    keras.layers.Conv2D: ConvReader(),
    keras.layers.Conv3D: ConvReader(),
    keras.layers.DepthwiseConv1D: DepthwiseReader(),
    keras.layers.DepthwiseConv2D: DepthwiseReader(),
    keras.layers.BatchNormalization: NormalizationReader(
        "gamma", "beta", _FLAGS
    ),
    keras.layers.GroupNormalization: NormalizationReader(
        "gamma", "beta", _FLAGS
    ),
    keras.layers.LayerNormalization: NormalizationReader(
        "gamma", "beta", {"gamma": None, "beta": None}
    ),
    keras.layers.RMSNormalization: NormalizationReader(
        "scale", None, {"scale": None}
    ),
}


def register_layer(kind: type, reader: Reader) -> None:
    """Let K-FAC know a kind of layer, for all models from now on.

    Args:
        kind: a class of layers that defines `call(inputs, ...)`. Subclasses
            that inherit this `call` are known too.
        reader: reads its layers. `DenseReader` serves a layer with a `kernel`
            (inputs, outputs), a `bias` (or None) and an `activation` (or
            None) that multiplies the last axis of its inputs; a subclass of
            `MatrixReader` or `Reader` says what is different.

    Raises:
        ValueError: if one of them is something else, or Keras gave the layer
            its `call`.

    >>> import keras
    >>> from keras_wd import kfac
    >>> class Projection(keras.layers.Dense):
    ...     def call(self, inputs, training=None):
    ...         return super().call(inputs)
    >>> kfac.register_layer(Projection, kfac.DenseReader())
    """
    if not (isinstance(kind, type) and issubclass(kind, keras.layers.Layer)):
        raise ValueError(
            f"`kind` must be a class of Keras layers. Received: kind={kind!r}."
        )
    if not isinstance(reader, Reader):
        raise ValueError(
            "`reader` must be an instance of a keras_wd.kfac.Reader, such as "
            f"DenseReader(). Received: reader={reader!r}."
        )
    if "call" not in vars(kind):
        raise ValueError(
            "`kind` must define a `call` of its own; another class's is read "
            f"with that class. Received: kind={kind.__name__}."
        )
    READERS[kind] = reader


# Inside of these a layer's tensors belong to a loop's body.
_LOOPS = (keras.layers.TimeDistributed, keras.layers.RNN)

# Classes are shared by all threads.
_LOCK = threading.RLock()


@contextlib.contextmanager
def intercepted(observe: Callable) -> Iterator[None]:
    """While this lasts, `observe` decides how known layers are called.

    Args:
        observe: function of the layer, its reader, its call as a function of
            the inputs (and of a twin of the layer to call instead), the
            inputs, and whether the call is inside a loop; returns the
            outputs. Calls of other threads go their own way.
    """
    depth = []
    thread = threading.get_ident()

    def watched(original, reader):
        @functools.wraps(original)
        def call(layer, *args, **kwargs):
            # A subclass that calls this from a `call` of its own may do
            # anything with the result.
            if type(layer).call is not call or threading.get_ident() != thread:
                return original(layer, *args, **kwargs)
            inputs, rest = _first(args, kwargs)
            return observe(
                layer,
                reader,
                lambda x, one=layer: original(one, x, *args[1:], **rest),
                inputs,
                bool(depth),
            )

        return call

    def loop(original):
        @functools.wraps(original)
        def call(layer, *args, **kwargs):
            if threading.get_ident() != thread:
                return original(layer, *args, **kwargs)
            depth.append(layer)
            try:
                return original(layer, *args, **kwargs)
            finally:
                depth.pop()

        return call

    replaced = []
    with _LOCK, contextlib.ExitStack() as undo:
        for kind, reader in READERS.items():
            replaced.append((kind, watched(kind.call, reader)))
        for kind in _LOOPS:
            replaced.append((kind, loop(kind.call)))
        for kind, call in replaced:
            undo.callback(_restore, kind, kind.__dict__.get("call"))
            kind.call = call
        yield


def _restore(kind, call):
    """Put the class's own `call` back, or let it inherit one again."""
    if call is None:
        del kind.call
    else:
        kind.call = call


def _first(args, kwargs):
    """The inputs of a layer, given by position or by name."""
    if args:
        return args[0], kwargs
    rest = dict(kwargs)
    for name in ("inputs", "x"):
        if name in rest:
            return rest.pop(name), rest
    raise ValueError(f"A layer must have inputs. Received: {list(kwargs)}.")
