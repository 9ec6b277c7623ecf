"""What a wrapper passes on to the optimizer inside it, and keeps for others.

Whatever users and Keras read or set on an optimizer acts here as on the
optimizer inside, or raises and says what to write.
"""

from keras_wd.optimizers import settings
from keras_wd.optimizers.checks import check_decays
from keras_wd.optimizers.exclusion import excluded
from keras_wd.optimizers.exclusion import without
from keras_wd.optimizers.settings import Setting

# What the state and the rates of a wrapper were made from.
_FIXED = ("inner_optimizer", "decay", "decays")


class DelegatesToInner:
    """The attributes Keras reads and sets on an optimizer, taken from inside.

    The class using it has an attribute `inner_optimizer`, the methods
    `current_weight_decay` and `set_weight_decay`, and `has_averages`.
    """

    clipnorm = Setting(settings.check_clipping, inner=True)
    clipvalue = Setting(settings.check_clipping, inner=True)
    global_clipnorm = Setting(settings.check_clipping, inner=True)
    loss_scale_factor = Setting(settings.check_loss_scale, inner=True)
    gradient_accumulation_steps = Setting(
        settings.check_accumulation, inner=True
    )
    use_ema = Setting(settings.check_use_average, inner=False)
    ema_momentum = Setting(settings.check_momentum, inner=False)
    ema_overwrite_frequency = Setting(settings.check_frequency, inner=False)

    @property
    def learning_rate(self):
        """The inner optimizer's learning rate."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate
        if isinstance(learning_rate, float):
            self._learning_rates.note(learning_rate)

    def learning_rates_of(self, name: str | None = None) -> dict[str, float]:
        """The learning rates that multiply a decay, by the variables' paths.

        That of the optimizer that steps the variable: `KFAC` may have others
        inside. 1 with `coupling="independent"`. Empty before `build`.

        Args:
            name: a key of `current_weight_decay`, if there are several.

        Raises:
            ValueError: if the decay is not there.
        """
        return self._learning_rates.by_path(self._rates.checked(name))

    @property
    def iterations(self):
        """How many real updates there have been."""
        return self.inner_optimizer.iterations

    @property
    def weight_decay(self) -> float | None:
        """The rate of the decay now; of all of them, if they agree.

        Setting it is `set_weight_decay(value)`, also between the batches of a
        `fit`; None is no decay, as in Keras.

        Raises:
            AttributeError: on reading, if the decays have different rates.
        """
        if not self._is_made():
            return None
        rates = self.current_weight_decay()
        if len(set(rates.values())) > 1:
            raise AttributeError(
                "`weight_decay` must be one number to be read. Received: "
                f"decays with the rates {rates}. Use current_weight_decay()."
            )
        return next(iter(rates.values()))

    @weight_decay.setter
    def weight_decay(self, value: float | None):
        # Keras's constructor sets it before there is a decay.
        if self._is_made():
            self.set_weight_decay(0.0 if value is None else value)

    @property
    def callback_memory(self) -> dict:
        """What callbacks find again in a resumed run, as plain Python."""
        return vars(self).setdefault("_callback_memory", {})

    @callback_memory.setter
    def callback_memory(self, memory: dict):
        vars(self)["_callback_memory"] = memory

    def apply_gradients(self, grads_and_vars):
        """`apply`, with pairs; returns `iterations`."""
        grads, trainable_variables = zip(*grads_and_vars, strict=True)
        self.apply(grads, trainable_variables)
        return self.iterations

    def update_step(self, gradient, variable, learning_rate):
        """Raises: a step of one variable would leave out the decays."""
        raise NotImplementedError(
            "`update_step` would take a step without the decays. Call "
            "`apply([gradient], [variable])`, or `inner_optimizer.update_step`."
        )

    def exclude_from_weight_decay(self, var_list=None, var_names=None) -> None:
        """Leave out variables, as if `where` of every decay said so.

        The same as `where=... & ~where.regex("bias")`, and saved like it. As
        in Keras, a call replaces the one before.

        Args:
            var_list: variables to leave out.
            var_names: regular expressions; a variable is left out if one of
                them is found in its path, such as `dense/bias`.

        Raises:
            ValueError: if the optimizer is built, a decay acts on whole units
                (`PathNorm`), or an argument is of another kind.
        """
        if self.built:
            raise ValueError(
                "`exclude_from_weight_decay` must be called before the "
                "optimizer is built, which decides what decays. Use "
                "`where=... & ~where.regex('bias')` in the decay."
            )
        if isinstance(var_names, str):
            raise ValueError(
                "`var_names` must be a list of strings. Received: "
                f"var_names={var_names!r}"
            )
        # Not a tracked list: the variables are the model's.
        vars(self)["_exclusion"] = list(var_list or ()), list(var_names or ())
        self._exclude(None)

    def _exclude(self, variables):
        """Apply what is excluded to the decays; to all if nothing is."""
        given = vars(self).setdefault("_given_decay", self.decay)
        found = excluded(*vars(self).get("_exclusion", ((), ())), variables)
        decay = without(given, found)
        vars(self).update(decay=decay, decays=check_decays(decay))

    def _is_made(self):
        return "_rates" in vars(self)

    def __getattr__(self, name):
        inner = vars(self).get("inner_optimizer")
        if name.startswith("_") or inner is None or hasattr(type(self), name):
            # Raises what looking it up has raised.
            return object.__getattribute__(self, name)
        if not hasattr(inner, name):
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}, "
                f"nor has the {type(inner).__name__!r} inside"
            )
        return getattr(inner, name)

    def __setattr__(self, name, value):
        if name in _FIXED and self._is_made():
            raise AttributeError(
                f"`{name}` must be given to the constructor, which makes the "
                f"rates and the state from it. Received: {name}={value!r} "
                "afterwards. Make a new optimizer, or set `weight_decay`."
            )
        if name == "jit_compile":
            raise AttributeError(
                "`jit_compile` must be passed to `model.compile`: an optimizer "
                f"of Keras 3 does not have it. Received: jit_compile={value!r}"
            )
        inner = vars(self).get("inner_optimizer")
        if (
            inner is None
            or name.startswith("_")
            or name in vars(self)
            or hasattr(type(self), name)
            or not hasattr(inner, name)
        ):
            super().__setattr__(name, value)
            return
        # A hyperparameter such as `momentum` or `beta_1`.
        settings.warn_if_compiled(self, name, value)
        setattr(inner, name, value)
