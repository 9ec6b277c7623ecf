"""The devices of this machine, chosen by the backend in use.

`available`    which kind there is, and how many
`join`         meet the other processes that train together
`split_cpu`    make several devices of the CPU, before anything is computed
`sharing`      a scope in which models are trained by several devices
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_wd.backend.tensorflow_devices import available
    from keras_wd.backend.tensorflow_devices import join
    from keras_wd.backend.tensorflow_devices import sharing
    from keras_wd.backend.tensorflow_devices import split_cpu
elif keras.backend.backend() == "jax":
    from keras_wd.backend.jax_devices import available
    from keras_wd.backend.jax_devices import join
    from keras_wd.backend.jax_devices import sharing
    from keras_wd.backend.jax_devices import split_cpu
else:
    from keras_wd.backend.no_devices import available
    from keras_wd.backend.no_devices import join
    from keras_wd.backend.no_devices import sharing
    from keras_wd.backend.no_devices import split_cpu

__all__ = ["available", "join", "sharing", "split_cpu"]
