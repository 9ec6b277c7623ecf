"""Selections by what a variable is for in its layer.

Names decide where they say enough: Keras, KerasHub and those who write layers
call a table of positions `position_embedding` or `pos_embed`, a class token
`class_token`. Where they do not, the class of the layer that holds the
variable decides, whatever the layer is called.
"""

import gc
import re
from collections.abc import Callable
from collections.abc import Sequence

import keras

from keras_wd.selection import Selection
from keras_wd.selection import path_of

_ADDS_OR_SCALES = {"bias", "gamma", "beta"}
_SCALES = {"alpha", "scale", "scales"}
_TABLES = {"emb", "embed", "embedding", "embeddings", "table"}
_NORMALIZATION = re.compile(r"Norm(alization)?(\d[dD])?$")


@keras.saving.register_keras_serializable("keras_wd.where")
class kernels(Selection):  # noqa: N801
    """Weights that multiply what a layer reads; the default everywhere.

    Of rank at least 2: kernels of Dense `(fan_in, units)`, convolution `(...,
    channels_in, units)`, recurrent and attention layers and of experts,
    LoRA factors, and embedding tables, which multiply a one-hot token;
    `kernels() & ~embeddings()` is without them. Not, by the words of the path:

    - `bias`, `gamma`, `beta`: biases and normalizations, also of rank 2;
    - `alpha`, `scale` at the end: slopes of PReLU, other scales;
    - tokens, as `tokens` has them: `class_token`, `mask_token`;
    - tables of positions: `pos_embed`, `rel_pos_h`, the `embeddings` of a
      layer called `position_embedding`, the relative ones of attention.

    A table of positions in an `Embedding` layer that is called something else
    is picked: give the layer the name `position_embedding`, or add
    `& ~where.paths("its_name/*")`.

    >>> import keras, keras_wd
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, name="head")], name="m"
    ... )
    >>> keras_wd.where.resolve(keras_wd.where.kernels(), model)
    ['m/head/kernel']
    """

    def picks(self, variable: keras.Variable) -> bool:
        if len(variable.shape) < 2:
            return False
        layer, name = _words(variable)
        return not (
            _ADDS_OR_SCALES & set(name)
            or name[-1] in _SCALES
            or _is_token(name)
            or _is_of_positions(layer, name)
        )

    def __repr__(self) -> str:
        return "where.kernels()"


@keras.saving.register_keras_serializable("keras_wd.where")
class embeddings(Selection):  # noqa: N801
    """Tables that are looked up: of tokens, segments and positions.

    Variables called `embeddings` or the like, `reverse_embeddings` among them,
    and the tables of positions that `kernels` leaves out, which
    `embeddings() & ~kernels()` picks alone.

    >>> import keras, keras_wd
    >>> model = keras.Sequential([
    ...     keras.Input((6,)),
    ...     keras.layers.Embedding(9, 4, name="words"),
    ...     keras.layers.Dense(2, name="head"),
    ... ], name="m")
    >>> keras_wd.where.resolve(keras_wd.where.embeddings(), model)
    ['m/words/embeddings']
    """

    def picks(self, variable: keras.Variable) -> bool:
        layer, name = _words(variable)
        added = _ADDS_OR_SCALES & set(name) and "table" not in name
        if added or _is_token(name):
            return False
        return bool(_TABLES & set(name)) or _is_of_positions(layer, name)

    def __repr__(self) -> str:
        return "where.embeddings()"


@keras.saving.register_keras_serializable("keras_wd.where")
class tokens(Selection):  # noqa: N801
    """Learned tokens that are put among the others: class, mask, registers.

    Variables whose name ends in `token` or `tokens`, as `class_token` and
    `distillation_token`, and `class_embedding`, `mask_emb` and the like.

    >>> import keras, keras_wd
    >>> token = keras.Variable([[1.0, 2.0]], name="class_token")
    >>> keras_wd.where.resolve(keras_wd.where.tokens(), [token])
    ['class_token']
    """

    def picks(self, variable: keras.Variable) -> bool:
        return _is_token(_words(variable)[1])

    def __repr__(self) -> str:
        return "where.tokens()"


class _Held(Selection):
    """Variables of layers of some classes, by the layers that are alive."""

    _holds: Callable[[keras.Layer], bool]

    def picks(self, variable: keras.Variable) -> bool:
        return self.picked([variable])[0]

    def picked(self, variables: Sequence[keras.Variable]) -> list[bool]:
        held = {
            id(variable)
            for layer in _layers(self._holds)
            # A layer whose constructor raised may be alive without any.
            for variable in getattr(layer, "variables", ())
        }
        return [id(variable) in held for variable in variables]


@keras.saving.register_keras_serializable("keras_wd.where")
class layers(_Held):  # noqa: N801
    """All weights of layers of a class, and of the layers inside them.

    Subclasses count, the name of the layer does not. A variable that no layer
    holds is not picked.

    Args:
        *kinds: classes of layers, or the names of such classes.

    Raises:
        ValueError: without a class, or for something else.

    >>> import keras
    >>> from keras_wd import where
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, name="body"),
    ...     keras.layers.Flatten(),
    ...     keras.layers.Dense(2, name="head"),
    ... ], name="m")
    >>> where.resolve(where.layers(keras.layers.Conv2D), model)
    ['m/body/kernel', 'm/body/bias']
    >>> where.resolve(where.kernels() & ~where.layers("Dense"), model)
    ['m/body/kernel']
    """

    def __init__(self, *kinds: type[keras.Layer] | str):
        if not kinds or not all(map(_is_kind, kinds)):
            raise ValueError(
                "`kinds` must be one or more classes of layers, or their "
                "names, such as keras.layers.Dense or 'Dense'. Received: "
                f"kinds={kinds!r}"
            )
        self.kinds = tuple(
            kind if isinstance(kind, str) else kind.__name__ for kind in kinds
        )

    def _holds(self, layer):
        return any(base.__name__ in self.kinds for base in type(layer).__mro__)

    def get_config(self) -> dict:
        return {"kinds": list(self.kinds)}

    @classmethod
    def from_config(cls, config: dict) -> "layers":
        return cls(*config["kinds"])

    def __repr__(self) -> str:
        return f"where.layers({', '.join(map(repr, self.kinds))})"


@keras.saving.register_keras_serializable("keras_wd.where")
class attention(_Held):  # noqa: N801
    """All weights of attention: projections, biases, norms inside it.

    Of layers of a class with `Attention` in its name or in that of a base, as
    all of Keras and KerasHub have.

    >>> import keras
    >>> from keras_wd import where
    >>> mixer = keras.layers.MultiHeadAttention(2, 3, name="mixer")
    >>> mixer.build((None, 4, 5), (None, 4, 5))
    >>> attended = where.kernels() & where.attention()
    >>> where.resolve(attended, mixer)[:2]
    ['mixer/query/kernel', 'mixer/key/kernel']
    """

    def _holds(self, layer):
        return not isinstance(layer, keras.Model) and any(
            "Attention" in base.__name__ for base in type(layer).__mro__
        )

    def __repr__(self) -> str:
        return "where.attention()"


@keras.saving.register_keras_serializable("keras_wd.where")
class normalizations(_Held):  # noqa: N801
    """The scales and shifts of normalization layers.

    Of layers of a class whose name, or that of a base, ends in `Norm` or
    `Normalization`, and that is no wrapper: not the kernel in a
    `SpectralNormalization`.

    >>> import keras
    >>> from keras_wd import where
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.BatchNormalization(name="bn")
    ... ], name="m")
    >>> where.resolve(where.normalizations(), model)
    ['m/bn/gamma', 'm/bn/beta']
    """

    def _holds(self, layer):
        return not isinstance(layer, keras.Model | keras.layers.Wrapper) and (
            any(_NORMALIZATION.search(b.__name__) for b in type(layer).__mro__)
        )

    def __repr__(self) -> str:
        return "where.normalizations()"


def _layers(wanted: Callable[[keras.Layer], bool]) -> list[keras.Layer]:
    """The layers of this process that are wanted.

    A variable does not know its layer, and an optimizer is built with
    variables alone; the garbage collector knows all layers there are.
    """
    classes = _classes(keras.Layer)
    return [
        item
        for item in gc.get_objects()
        if type(item) in classes and wanted(item)
    ]


def _classes(base):
    """It and all below it: a set, which is asked a million times."""
    return {base}.union(*map(_classes, base.__subclasses__()))


def _is_kind(kind):
    if isinstance(kind, str):
        return kind.isidentifier()
    return isinstance(kind, type) and issubclass(kind, keras.Layer)


def _words(variable):
    """The words of the names of the layer and of the variable itself."""
    segments = ["", *path_of(variable).lower().split("/")]
    layer, name = (segment.split("_") for segment in segments[-2:])
    return layer, name


def _is_token(name):
    return name[-1] in ("token", "tokens") or bool(
        {"class", "cls", "mask"} & set(name) and _TABLES & set(name)
    )


def _is_of_positions(layer, name):
    """Whether a table has a row for every position, or distance of two."""
    if "kernel" in name:
        return False
    if _speaks_of_positions(name):
        return True
    if not _TABLES & set(name):
        return False
    # T5 keeps its table of distances in the attention layer itself.
    return (
        bool({"rel", "relative"} & {*layer, *name})
        or _speaks_of_positions(layer)
        or "attention" in layer
    )


def _speaks_of_positions(words):
    return any(word == "pos" or word.startswith("position") for word in words)
