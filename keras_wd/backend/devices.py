"""The devices of this machine, chosen by the backend in use.

`available`    which kind there is, and how many
`join`         meet the other processes that train together
`split_cpu`    make several devices of the CPU, before anything is computed
`sharing`      a scope in which models are trained by several devices

And what they hold, outside of a training step:

`holding`      the devices of this process that have a copy of variables each
`on`           a context in which one of them computes
`read`         the copy of a device
`assign`       a value that one device found, to all copies
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_wd.backend.tensorflow_devices import assign
    from keras_wd.backend.tensorflow_devices import available
    from keras_wd.backend.tensorflow_devices import holding
    from keras_wd.backend.tensorflow_devices import join
    from keras_wd.backend.tensorflow_devices import on
    from keras_wd.backend.tensorflow_devices import read
    from keras_wd.backend.tensorflow_devices import sharing
    from keras_wd.backend.tensorflow_devices import split_cpu
elif keras.backend.backend() == "jax":
    from keras_wd.backend.jax_devices import assign
    from keras_wd.backend.jax_devices import available
    from keras_wd.backend.jax_devices import holding
    from keras_wd.backend.jax_devices import join
    from keras_wd.backend.jax_devices import on
    from keras_wd.backend.jax_devices import read
    from keras_wd.backend.jax_devices import sharing
    from keras_wd.backend.jax_devices import split_cpu
else:
    from keras_wd.backend.no_devices import assign
    from keras_wd.backend.no_devices import available
    from keras_wd.backend.no_devices import holding
    from keras_wd.backend.no_devices import join
    from keras_wd.backend.no_devices import on
    from keras_wd.backend.no_devices import read
    from keras_wd.backend.no_devices import sharing
    from keras_wd.backend.no_devices import split_cpu

__all__ = [
    "assign",
    "available",
    "holding",
    "join",
    "on",
    "read",
    "sharing",
    "split_cpu",
]
