"""How the benchmarks on digits train: the loss, the order, a model again."""

import keras
import numpy as np

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model, optimizer, steps_per_execution, jit_compile=True):
    """The model, with the loss and the accuracy of digits."""
    model.compile(
        optimizer,
        LOSS,
        metrics=["accuracy"],
        jit_compile=jit_compile,
        steps_per_execution=steps_per_execution,
    )
    return model


def epochs_of(generator, examples, steps, batch):
    """Which example stands where in `steps` batches.

    Every epoch has an order of its own, of whole batches.
    """
    whole = examples // batch * batch
    orders = [
        generator.permutation(examples)[:whole]
        for _ in range(-(-steps * batch // whole))
    ]
    return np.concatenate(orders)[: steps * batch]


def fit_in_order(model, data, rows, batch):
    """Train on these rows of the data, in their order."""
    x, y = data
    model.fit(x[rows], y[rows], batch, shuffle=False, verbose=0)


def evaluated(model, data):
    """Loss and accuracy on data, in one batch."""
    return model.evaluate(*data, batch_size=len(data[0]), verbose=0)


class Trainer:
    """A network and an optimizer that start anew from a seed.

    They are compiled once, for all runs.
    """

    def __init__(self, build, optimizer, batch, steps_per_execution):
        self.build, self.batch = build, batch
        self.model = compiled(build(), optimizer, steps_per_execution)
        self.prepare()
        optimizer.build(self.model.trainable_variables)
        self.fresh = [np.array(v.value) for v in optimizer.variables]

    def prepare(self):
        """What an optimizer needs before it is built; nothing here."""

    def start(self, seed, lr, **rates):
        """New weights; `rates` by the name of the decay, or `decay`."""
        keras.utils.set_random_seed(seed)
        self.model.set_weights(self.build().get_weights())
        optimizer = self.model.optimizer
        variables = optimizer.variables
        for variable, value in zip(variables, self.fresh, strict=True):
            variable.assign(value)
        optimizer.learning_rate = lr
        for name, rate in rates.items():
            name = None if name == "decay" else name
            optimizer.set_weight_decay(rate, name)

    def kernels(self):
        return [np.array(v.value) for v in self.model.trainable_variables]

    def norms(self):
        return np.array([np.linalg.norm(k) for k in self.kernels()])

    def scale(self, factors):
        """Multiply every kernel, by one number or one for each."""
        variables = self.model.trainable_variables
        for v, factor in zip(
            variables, np.broadcast_to(factors, len(variables)), strict=True
        ):
            v.assign(v.value * np.float32(factor))

    def fit(self, data, epochs, *callbacks, seed=0):
        """Train in an order of the seed; the loss of every epoch."""
        keras.utils.set_random_seed(seed)
        past = self.model.fit(*data, self.batch, epochs, 0, callbacks)
        return np.array(past.history["loss"])

    def accuracy(self, data):
        return self.model.test_on_batch(*data, return_dict=True)["accuracy"]
