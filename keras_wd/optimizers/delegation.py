"""What a wrapper passes on to the optimizer inside it, and keeps for others."""


class DelegatesToInner:
    """The attributes Keras reads and sets on an optimizer, taken from inside.

    The class using it has an attribute `inner_optimizer`.
    """

    @property
    def learning_rate(self):
        """The inner optimizer's learning rate."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        """How many real updates there have been."""
        return self.inner_optimizer.iterations

    @property
    def callback_memory(self) -> dict:
        """What callbacks find again in a resumed run, as plain Python."""
        return vars(self).setdefault("_callback_memory", {})

    @callback_memory.setter
    def callback_memory(self, memory: dict):
        vars(self)["_callback_memory"] = memory

    @property
    def loss_scale_factor(self) -> float | None:
        """The inner optimizer's static loss scale."""
        inner = vars(self).get("inner_optimizer")
        return None if inner is None else inner.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor: float | None):
        # Keras's constructor sets it before there is an inner optimizer.
        inner = vars(self).get("inner_optimizer")
        if inner is not None:
            inner.loss_scale_factor = factor
