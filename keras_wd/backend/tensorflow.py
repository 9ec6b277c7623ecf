"""What is particular to TensorFlow."""

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util


def assign_now(variable: keras.Variable, value) -> None:
    """Assign a value at once, also while a function is traced."""
    with tf.init_scope():
        variable.assign(value)


def concrete_value(variable: keras.Variable) -> np.ndarray | None:
    """The value a variable holds now, also while a function is traced.

    None if it has none yet: a model that its first batch builds inside the
    compiled step gets its values when that step runs.
    """
    with tf.init_scope():
        if not variable.value.is_initialized():
            return None
        return tf.convert_to_tensor(variable.value).numpy()


def snapshot(variable: keras.Variable):
    """A tensor of the variable's value that a later assignment spares."""
    # `ops.convert_to_tensor` would return the variable, to be read later.
    return tf.convert_to_tensor(variable.value)


def replica_count() -> int:
    """How many replicas add up their gradients."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def tracing_for_xla() -> bool:
    """Whether the operations being traced will be fused by XLA."""
    # TensorFlow marks the graphs of `jit_compile=True` functions with an XLA
    # control flow context and offers no public way to ask for it.
    graph = tf.compat.v1.get_default_graph()
    return bool(control_flow_util.GraphOrParentsInXlaContext(graph))
