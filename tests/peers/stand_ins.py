"""What stands for Keras's optimizers while a test runs."""

import contextlib
import sys

import keras

from keras_wd.decays import L2
from keras_wd.optimizers import WeightDecay
from keras_wd.where import everything

# They hold optimizers, which are wrapped themselves.
_HOLDERS = ("LossScaleOptimizer", "MultiOptimizer")


class StandIns:
    """Puts the wrapper in the place of Keras's optimizers.

    `wrapping` switches it on; `made` counts the wrappers.
    """

    def __init__(self):
        self.wrapping = False
        self.made = 0

    @contextlib.contextmanager
    def installed(self):
        """Put them where Keras's modules have the classes."""
        base = keras.optimizers.Optimizer
        stand_ins = {
            kind: _StandIn(kind, self)
            for kind in vars(keras.optimizers).values()
            if isinstance(kind, type)
            and issubclass(kind, base)
            and kind is not base
            and kind.__name__ not in _HOLDERS
        }
        get = keras.optimizers.get

        def get_wrapped(identifier):
            optimizer = get(identifier)
            named = isinstance(identifier, str | dict)
            return self.wrap(optimizer) if named else optimizer

        replaced = []
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] != "keras":
                continue
            for attribute, value in list(vars(module).items()):
                if isinstance(value, type) and value in stand_ins:
                    new = stand_ins[value]
                elif value is get:
                    new = get_wrapped
                else:
                    continue
                replaced.append((module, attribute, value))
                setattr(module, attribute, new)
        try:
            yield
        finally:
            for module, attribute, value in replaced:
                setattr(module, attribute, value)

    def wrap(self, optimizer):
        """The optimizer in a wrapper that does what it did."""
        if not self.wrapping or not isinstance(
            optimizer, keras.optimizers.Optimizer
        ):
            return optimizer
        if isinstance(optimizer, WeightDecay) or (
            type(optimizer).__name__ in _HOLDERS
        ):
            return optimizer
        self.made += 1
        # What the wrapper does itself is taken from the optimizer.
        rate = optimizer.weight_decay
        if rate:
            optimizer.weight_decay = 0.0
        if getattr(optimizer, "adam_weight_decay", None):
            optimizer.adam_weight_decay = 0.0
        use_ema, optimizer.use_ema = optimizer.use_ema, False
        average = {"use_ema": use_ema}
        if use_ema:
            average["ema_momentum"] = optimizer.ema_momentum
            average["ema_overwrite_frequency"] = (
                optimizer.ema_overwrite_frequency
            )
        return WeightDecay(
            optimizer,
            L2(rate or 0.0, where=everything()),
            name=optimizer.name,
            **average,
        )


class _StandIn:
    """An optimizer class whose objects are wrapped.

    It is no class itself, so that a subclass of it is one of Keras's class.
    """

    def __init__(self, kind, stand_ins):
        self._kind = kind
        self._stand_ins = stand_ins

    def __call__(self, *args, **kwargs):
        return self._stand_ins.wrap(self._kind(*args, **kwargs))

    def __getattr__(self, name):
        return getattr(self._kind, name)

    def __mro_entries__(self, bases):
        return (self._kind,)

    def __instancecheck__(self, instance):
        if isinstance(instance, WeightDecay):
            instance = instance.inner_optimizer
        return isinstance(instance, self._kind)

    def __subclasscheck__(self, kind):
        return issubclass(kind, (self._kind, WeightDecay))

    def from_config(self, config, custom_objects=None):
        """Keras's, or the wrapper's if the configuration is a wrapper's."""
        if "inner_optimizer" in config:
            return WeightDecay.from_config(config, custom_objects)
        return self._stand_ins.wrap(self._kind.from_config(config))
