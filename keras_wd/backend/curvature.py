"""What K-FAC needs from a backend, chosen by the backend in use.

`compiled`    a program of its own, whose effects are assignments
`tapped_vjp`  outputs of a function and a pullback to tensors inside of it
`cholesky`    a factorisation that returns NaN instead of raising
`scope`       where variables of a model's optimizer are created
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_wd.backend.tensorflow_curvature import cholesky
    from keras_wd.backend.tensorflow_curvature import compiled
    from keras_wd.backend.tensorflow_curvature import scope
    from keras_wd.backend.tensorflow_curvature import sum_over_replicas
    from keras_wd.backend.tensorflow_curvature import tapped_vjp
elif keras.backend.backend() == "jax":
    from keras_wd.backend.jax_curvature import cholesky
    from keras_wd.backend.jax_curvature import compiled
    from keras_wd.backend.jax_curvature import scope
    from keras_wd.backend.jax_curvature import sum_over_replicas
    from keras_wd.backend.jax_curvature import tapped_vjp
else:
    from keras_wd.backend.no_curvature import cholesky
    from keras_wd.backend.no_curvature import compiled
    from keras_wd.backend.no_curvature import scope
    from keras_wd.backend.no_curvature import sum_over_replicas
    from keras_wd.backend.no_curvature import tapped_vjp

__all__ = ["cholesky", "compiled", "scope", "sum_over_replicas", "tapped_vjp"]
