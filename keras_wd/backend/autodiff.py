"""Derivatives and programs of their own, by the backend in use.

`compiled`    a program of its own, whose effects are assignments
`tapped_vjp`  outputs of a function and a pullback to tensors inside of it
`for_each`    a function of every row
`jvp`         the derivative along a direction of the variables
`traced`      running a function without computing anything
`MOST_ROWS_WRITTEN_OUT`  of a matrix whose inverse needs no loop
`cholesky`    a factorisation that returns NaN instead of raising
`read`        a variable's value
`dense`       a tensor whose every row is there
`kept_scope`  the same where variables are assigned, of now for later
`scope`       where variables of a model's optimizer are created
`sum_over_replicas`  of gradients inside a step
`xla_pays_for_few_runs`  whether to compile a measurement by XLA
`require`     raise where all of this is missing
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_wd.backend.tensorflow_autodiff import MOST_ROWS_WRITTEN_OUT
    from keras_wd.backend.tensorflow_autodiff import cholesky
    from keras_wd.backend.tensorflow_autodiff import compiled
    from keras_wd.backend.tensorflow_autodiff import dense
    from keras_wd.backend.tensorflow_autodiff import for_each
    from keras_wd.backend.tensorflow_autodiff import jvp
    from keras_wd.backend.tensorflow_autodiff import kept_scope
    from keras_wd.backend.tensorflow_autodiff import read
    from keras_wd.backend.tensorflow_autodiff import scope
    from keras_wd.backend.tensorflow_autodiff import sum_over_replicas
    from keras_wd.backend.tensorflow_autodiff import tapped_vjp
    from keras_wd.backend.tensorflow_autodiff import traced
    from keras_wd.backend.tensorflow_autodiff import xla_pays_for_few_runs
elif keras.backend.backend() == "jax":
    from keras_wd.backend.jax_autodiff import MOST_ROWS_WRITTEN_OUT
    from keras_wd.backend.jax_autodiff import cholesky
    from keras_wd.backend.jax_autodiff import compiled
    from keras_wd.backend.jax_autodiff import dense
    from keras_wd.backend.jax_autodiff import for_each
    from keras_wd.backend.jax_autodiff import jvp
    from keras_wd.backend.jax_autodiff import kept_scope
    from keras_wd.backend.jax_autodiff import read
    from keras_wd.backend.jax_autodiff import scope
    from keras_wd.backend.jax_autodiff import sum_over_replicas
    from keras_wd.backend.jax_autodiff import tapped_vjp
    from keras_wd.backend.jax_autodiff import traced
    from keras_wd.backend.jax_autodiff import xla_pays_for_few_runs
else:
    from keras_wd.backend.no_autodiff import MOST_ROWS_WRITTEN_OUT
    from keras_wd.backend.no_autodiff import cholesky
    from keras_wd.backend.no_autodiff import compiled
    from keras_wd.backend.no_autodiff import dense
    from keras_wd.backend.no_autodiff import for_each
    from keras_wd.backend.no_autodiff import jvp
    from keras_wd.backend.no_autodiff import kept_scope
    from keras_wd.backend.no_autodiff import read
    from keras_wd.backend.no_autodiff import refuse
    from keras_wd.backend.no_autodiff import scope
    from keras_wd.backend.no_autodiff import sum_over_replicas
    from keras_wd.backend.no_autodiff import tapped_vjp
    from keras_wd.backend.no_autodiff import traced
    from keras_wd.backend.no_autodiff import xla_pays_for_few_runs


def require(name: str) -> None:
    """Raise a ValueError about `name` on a backend without curvature."""
    if keras.backend.backend() not in ("tensorflow", "jax"):
        refuse(name)


__all__ = [
    "MOST_ROWS_WRITTEN_OUT",
    "cholesky",
    "compiled",
    "dense",
    "for_each",
    "jvp",
    "kept_scope",
    "read",
    "require",
    "scope",
    "sum_over_replicas",
    "tapped_vjp",
    "traced",
    "xla_pays_for_few_runs",
]
