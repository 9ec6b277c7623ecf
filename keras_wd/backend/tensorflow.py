"""What is particular to TensorFlow."""

import keras
import numpy as np
import tensorflow as tf


def assign_now(variable: keras.Variable, value: np.ndarray) -> None:
    """Assign a value at once, also while a function is traced."""
    with tf.init_scope():
        variable.assign(value)


def concrete_value(variable: keras.Variable) -> np.ndarray | None:
    """The value a variable holds now, also while a function is traced.

    None if it has none yet: a model that its first batch builds inside the
    compiled step gets its values when that step runs.
    """
    value = _of_tensorflow(variable)
    with tf.init_scope():
        if not value.is_initialized():
            return None
        return tf.convert_to_tensor(value).numpy()


def snapshot(variable: keras.Variable):
    """A tensor of the variable's value that a later assignment spares."""
    # `ops.convert_to_tensor` would return the variable, to be read later.
    return tf.convert_to_tensor(_of_tensorflow(variable))


def _of_tensorflow(variable):
    """A Keras variable's own; loops of one's own may pass that directly."""
    if isinstance(variable, keras.Variable):
        return variable.value
    return variable


def replica_count() -> int:
    """How many replicas add up their gradients."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def is_traced(tensor: object) -> bool:
    """Whether a tensor stands for a value in a program that is made."""
    return not tf.executing_eagerly()


def outside_program():
    """A context in which operations run now, also while one is traced."""
    return tf.init_scope()


def tracing_for_xla() -> bool:
    """Whether the operations being traced will be fused by XLA."""
    # TensorFlow marks the graphs of `jit_compile=True` functions with an XLA
    # control flow context and offers no public way to ask for it. Where a
    # later TensorFlow has moved this, steps are right and slower.
    try:
        from tensorflow.python.ops import control_flow_util
    except ImportError:
        return False
    graph = tf.compat.v1.get_default_graph()
    return bool(control_flow_util.GraphOrParentsInXlaContext(graph))


def always_fused() -> bool:
    """Whether all operations are fused into loops, not only under XLA."""
    return False


def writes_terms_of_sums() -> bool:
    """Whether XLA for a CPU writes the terms of a long sum into memory."""
    return True
