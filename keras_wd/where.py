"""Selections: which variables a decay acts on.

A selection looks at a variable and picks it or not: by its path and rank
(`kernels`, `embeddings`, `tokens`, `paths`, `regex`), or by the class of the
layer that holds it (`attention`, `normalizations`, `layers`). Selections
combine with `&`, `|` and `~`, are saved with the optimizer, and are resolved
once, when the optimizer is built. Four known rules:

    PyTorch recipes, timm           kernels()
    Keras AdamW                     everything()
    BERT fine-tuning                everything() & ~normalizations()
                                    & ~paths("**/bias")
    no decay of embedding tables    kernels() & ~embeddings()

A path is Keras's `variable.path`, such as `sequential/dense_1/kernel`.
"""

import re
from collections.abc import Sequence

import keras

from keras_wd.patterns import Patterns
from keras_wd.patterns import nearest
from keras_wd.patterns import shortest_endings
from keras_wd.roles import attention
from keras_wd.roles import embeddings
from keras_wd.roles import kernels
from keras_wd.roles import layers
from keras_wd.roles import normalizations
from keras_wd.roles import tokens
from keras_wd.selection import Selection
from keras_wd.selection import check_selection
from keras_wd.selection import path_of

__all__ = [
    "Selection",
    "attention",
    "embeddings",
    "everything",
    "kernels",
    "layers",
    "normalizations",
    "paths",
    "regex",
    "resolve",
    "tokens",
]


def __dir__():
    return __all__


@keras.saving.register_keras_serializable("keras_wd.where")
class everything(Selection):  # noqa: N801
    """Every trainable variable, as Keras's own `weight_decay` means it.

    >>> import keras, keras_wd
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, name="head")], name="m"
    ... )
    >>> keras_wd.where.resolve(keras_wd.where.everything(), model)
    ['m/head/kernel', 'm/head/bias']
    """

    def picks(self, variable: keras.Variable) -> bool:
        return True

    def __repr__(self) -> str:
        return "where.everything()"


@keras.saving.register_keras_serializable("keras_wd.where")
class paths(Selection):  # noqa: N801
    """Variables whose path matches one of the patterns.

    A pattern is a glob over whole path segments and is compared with the end
    of the path: `"head/kernel"` selects `model/head/kernel`, not
    `model/subhead/kernel`. `*` stands for anything inside one segment, `**`
    for any number of segments. Patterns hold on to the end because the start
    may change: a Sequential model loaded from a file has paths without the
    model's name.

    Args:
        *patterns: one or more globs.

    Raises:
        ValueError: without a pattern, or if one is not a string with
            something in it.

    >>> import keras, keras_wd
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, name="head")], name="m"
    ... )
    >>> keras_wd.where.resolve(keras_wd.where.paths("head/*"), model)
    ['m/head/kernel', 'm/head/bias']
    """

    def __init__(self, *patterns: str):
        if not patterns or not all(
            isinstance(pattern, str) and all(pattern.split("/"))
            for pattern in patterns
        ):
            raise ValueError(
                "`patterns` must be one or more path globs such as "
                f"'head/*' or '**/kernel'. Received: patterns={patterns!r}"
            )
        self.patterns = patterns
        self._lookup = Patterns(patterns)

    def picks(self, variable: keras.Variable) -> bool:
        return self._lookup.match(path_of(variable))

    def get_config(self) -> dict:
        return {"patterns": list(self.patterns)}

    @classmethod
    def from_config(cls, config: dict) -> "paths":
        return cls(*config["patterns"])

    def __repr__(self) -> str:
        return f"where.paths({', '.join(map(repr, self.patterns))})"


@keras.saving.register_keras_serializable("keras_wd.where")
class regex(Selection):  # noqa: N801
    """Variables in whose path one of the expressions is found.

    As `exclude_from_weight_decay` of Keras's optimizers reads a name: a match
    anywhere in the path counts, also inside a segment, so that `"bias"` finds
    `unbiased/kernel` too. `paths` means whole segments.

    Args:
        *patterns: one or more regular expressions.

    Raises:
        ValueError: without a pattern, or if one is not a regular expression.

    >>> import keras, keras_wd
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, name="head")], name="m"
    ... )
    >>> keras_wd.where.resolve(keras_wd.where.regex("head/b.*"), model)
    ['m/head/bias']
    """

    def __init__(self, *patterns: str):
        if not patterns or not all(map(_is_expression, patterns)):
            raise ValueError(
                "`patterns` must be one or more regular expressions such as "
                f"'bias|norm'. Received: patterns={patterns!r}"
            )
        self.patterns = patterns

    def picks(self, variable: keras.Variable) -> bool:
        path = path_of(variable)
        return any(re.search(pattern, path) for pattern in self.patterns)

    def get_config(self) -> dict:
        return {"patterns": list(self.patterns)}

    @classmethod
    def from_config(cls, config: dict) -> "regex":
        return cls(*config["patterns"])

    def __repr__(self) -> str:
        return f"where.regex({', '.join(map(repr, self.patterns))})"


def _is_expression(pattern):
    try:
        return isinstance(pattern, str) and bool(re.compile(pattern).pattern)
    except re.error:
        return False


def resolve(
    selection: Selection,
    model_or_variables: keras.Model | Sequence[keras.Variable],
) -> list[str]:
    """The paths of the trainable variables that a selection picks.

    Args:
        selection: what to look for.
        model_or_variables: a built model, or a list of variables.

    Raises:
        ValueError: if nothing is selected or the model is not built.

    >>> import keras, keras_wd
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, name="head")], name="m"
    ... )
    >>> keras_wd.where.resolve(~keras_wd.where.kernels(), model)
    ['m/head/bias']
    """
    variables = trainable_variables(model_or_variables)
    return [
        path_of(variables[index])
        for index in selected_indices(selection, variables)
    ]


def selected_indices(
    selection: Selection, variables: Sequence[keras.Variable]
) -> list[int]:
    """Positions of the variables that a selection picks; at least one."""
    check_selection("where", selection)
    indices = [
        index
        for index, picked in enumerate(selection.picked(variables))
        if picked
    ]
    if not indices:
        existing = [path_of(variable) for variable in variables]
        hint = nearest(_patterns_in(selection), existing)
        raise ValueError(
            "`where` must select at least one trainable variable. Received: "
            f"where={selection!r}, which matches none of "
            f"{', '.join(existing)}{hint}"
        )
    return indices


def _patterns_in(selection):
    """The patterns of a selection, wherever they stand in it."""
    parts = getattr(selection, "parts", ())
    own = getattr(selection, "patterns", ())
    return [*own, *(p for part in parts for p in _patterns_in(part))]


def trainable_variables(
    model_or_variables: keras.Model | Sequence[keras.Variable],
) -> list[keras.Variable]:
    """The trainable variables of a built model, or the list as it is."""
    if isinstance(model_or_variables, keras.layers.Layer):
        if not model_or_variables.built:
            raise ValueError(
                "`model` must be built, so that it has variables. Received: "
                f"model={model_or_variables!r}, which is not. Call it on a "
                "batch or give it a `keras.Input` first."
            )
        return list(model_or_variables.trainable_variables)
    return list(model_or_variables)


def paths_of(
    chosen: Sequence[keras.Variable], variables: Sequence[keras.Variable]
) -> paths:
    """The selection of just these variables, valid after a reload.

    Every one of `chosen` is named by the shortest end of its path, of at least
    the layer and the weight, that no other of `variables` shares; a
    ValueError if two have the same path.
    """
    patterns = shortest_endings([path_of(v) for v in variables])
    for variable in chosen:
        path = path_of(variable)
        if path not in patterns:
            raise ValueError(
                "`variables` must have paths of their own. Received: two "
                f"variables with the path {path}. Give the layers "
                "other names."
            )
    return paths(*(patterns[path_of(v)] for v in chosen))
