"""What a selection of variables is, and how selections combine."""

import abc
from collections.abc import Sequence

import keras


class Selection(abc.ABC):
    """Picks variables by what they are. Subclass it and register the class.

    A subclass defines `picks(variable)` and, if its constructor takes
    arguments, `get_config()`.
    """

    @abc.abstractmethod
    def picks(self, variable: keras.Variable) -> bool:
        """Whether `variable` (it has `path` and `shape`) is selected."""

    def picked(self, variables: Sequence[keras.Variable]) -> list[bool]:
        """Whether each of `variables` is selected; all looked up at once."""
        return [self.picks(variable) for variable in variables]

    def get_config(self) -> dict:
        """The constructor's arguments as plain Python."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Selection":
        """The inverse of `get_config`."""
        return cls(**config)

    def __and__(self, other: "Selection") -> "Selection":
        return _And(self, other)

    def __or__(self, other: "Selection") -> "Selection":
        return _Or(self, other)

    def __invert__(self) -> "Selection":
        return _Not(self)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and (
            self.get_config() == other.get_config()
        )

    def __hash__(self) -> int:
        return hash(repr(self))


class _Combination(Selection):
    def __init__(self, *parts: Selection):
        for part in parts:
            check_selection("part", part)
        self.parts = parts

    def picks(self, variable: keras.Variable) -> bool:
        return self.picked([variable])[0]

    def get_config(self) -> dict:
        return {
            "parts": [
                keras.saving.serialize_keras_object(part) for part in self.parts
            ]
        }

    @classmethod
    def from_config(cls, config: dict) -> "_Combination":
        return cls(*map(keras.saving.deserialize_keras_object, config["parts"]))


@keras.saving.register_keras_serializable("keras_wd.where")
class _And(_Combination):
    def picked(self, variables: Sequence[keras.Variable]) -> list[bool]:
        found = [part.picked(variables) for part in self.parts]
        return [all(answers) for answers in zip(*found, strict=True)]

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.parts))})"


@keras.saving.register_keras_serializable("keras_wd.where")
class _Or(_Combination):
    def picked(self, variables: Sequence[keras.Variable]) -> list[bool]:
        found = [part.picked(variables) for part in self.parts]
        return [any(answers) for answers in zip(*found, strict=True)]

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.parts))})"


@keras.saving.register_keras_serializable("keras_wd.where")
class _Not(_Combination):
    def picked(self, variables: Sequence[keras.Variable]) -> list[bool]:
        return [not answer for answer in self.parts[0].picked(variables)]

    def __repr__(self) -> str:
        return f"~{self.parts[0]!r}"


def path_of(variable) -> str:
    """The path of a variable; of one of TensorFlow's own, its name."""
    path = getattr(variable, "path", None)
    return variable.name.partition(":")[0] if path is None else path


def check_selection(name: str, selection: Selection) -> Selection:
    """Return `selection`, or raise if it is something else."""
    if not isinstance(selection, Selection):
        raise ValueError(
            f"`{name}` must be a selection from `keras_wd.where`, for example "
            f"where.paths('head/*'). Received: {name}={selection!r}"
        )
    return selection
