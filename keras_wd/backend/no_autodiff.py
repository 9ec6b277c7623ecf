"""Backends without a K-FAC: the package imports, what needs it says no."""

import keras


def refuse(name: str) -> None:
    """Raise: this backend lacks what `name` is made of."""
    raise ValueError(
        f"`{name}` must run on TensorFlow or JAX. Received: "
        f"backend={keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow or "
        "KERAS_BACKEND=jax."
    )


def _refuse(*args, **kwargs):
    refuse("keras_wd.backend.autodiff")


cholesky = compiled = dense = for_each = jvp = kept_scope = read = _refuse
scope = _refuse
sum_over_replicas = tapped_vjp = traced = xla_pays_for_few_runs = _refuse
MOST_ROWS_WRITTEN_OUT = None
