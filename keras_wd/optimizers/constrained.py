"""Constraints that wait until the decay has acted."""

import contextlib
from collections.abc import Sequence

import keras


class Constraints:
    """The constraints of the variables of an optimizer, by position.

    A Keras optimizer constrains at the end of its own step, before the decay.
    One that is not linear would then act twice in a step, on other weights
    than in an optimizer of Keras with the decay inside.

    Args:
        variables: those of the optimizer.
    """

    def __init__(self, variables: Sequence[keras.Variable]):
        self._variables = variables
        self._withheld = {}
        self._users = 0

    def of(self, position: int):
        """The constraint of a variable, or None."""
        if position in self._withheld:
            return self._withheld[position]
        return getattr(self._variables[position], "constraint", None)

    @contextlib.contextmanager
    def withheld(self, positions):
        """While the inner optimizer steps: variables without constraints.

        Replicas trace one program in threads that take turns: the first takes
        the constraints away and the last brings them back.
        """
        self._users += 1
        for position in positions:
            variable = self._variables[position]
            # TensorFlow's own variables do not let go of theirs.
            if isinstance(variable, keras.Variable) and variable.constraint:
                self._withheld[position] = variable.constraint
                variable.constraint = None
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                for position, constraint in self._withheld.items():
                    self._variables[position].constraint = constraint
                self._withheld = {}
