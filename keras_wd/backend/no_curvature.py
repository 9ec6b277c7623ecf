"""Backends without a K-FAC: the package imports, K-FAC itself says no."""

import keras


def _refuse(*args, **kwargs):
    raise NotImplementedError(
        "`KFAC` must run on the tensorflow or the jax backend. Received: "
        f"backend={keras.backend.backend()!r}."
    )


cholesky = compiled = for_each = jvp = read = scope = _refuse
sum_over_replicas = tapped_vjp = traced = xla_pays_for_few_runs = _refuse
