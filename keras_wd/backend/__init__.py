"""The one place that names a backend.

Everything else in the package is written with `keras.ops`. What has no
portable name is here, a file per backend with the same functions.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_wd.backend.tensorflow import always_fused
    from keras_wd.backend.tensorflow import assign_now
    from keras_wd.backend.tensorflow import concrete_value
    from keras_wd.backend.tensorflow import is_traced
    from keras_wd.backend.tensorflow import outside_program
    from keras_wd.backend.tensorflow import replica_count
    from keras_wd.backend.tensorflow import snapshot
    from keras_wd.backend.tensorflow import tracing_for_xla
    from keras_wd.backend.tensorflow import writes_terms_of_sums
elif keras.backend.backend() == "jax":
    from keras_wd.backend.jax import always_fused
    from keras_wd.backend.jax import assign_now
    from keras_wd.backend.jax import concrete_value
    from keras_wd.backend.jax import is_traced
    from keras_wd.backend.jax import outside_program
    from keras_wd.backend.jax import replica_count
    from keras_wd.backend.jax import snapshot
    from keras_wd.backend.jax import tracing_for_xla
    from keras_wd.backend.jax import writes_terms_of_sums
else:
    from keras_wd.backend.eager import always_fused
    from keras_wd.backend.eager import assign_now
    from keras_wd.backend.eager import concrete_value
    from keras_wd.backend.eager import is_traced
    from keras_wd.backend.eager import outside_program
    from keras_wd.backend.eager import replica_count
    from keras_wd.backend.eager import snapshot
    from keras_wd.backend.eager import tracing_for_xla
    from keras_wd.backend.eager import writes_terms_of_sums

__all__ = [
    "always_fused",
    "assign_now",
    "concrete_value",
    "is_traced",
    "outside_program",
    "replica_count",
    "snapshot",
    "tracing_for_xla",
    "writes_terms_of_sums",
]
