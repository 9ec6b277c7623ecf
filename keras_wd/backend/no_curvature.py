"""Backends without a K-FAC: the package imports, K-FAC itself says no."""

import keras


def _refuse(*args, **kwargs):
    raise NotImplementedError(
        "`KFAC` must run on the tensorflow or the jax backend. Received: "
        f"backend={keras.backend.backend()!r}."
    )


cholesky = compiled = jvp = read = scope = _refuse
sum_over_replicas = tapped_vjp = traced = _refuse
