"""Programs as compilers get them, without running or compiling any.

On JAX a program is lowered for three platforms, whether or not this machine
has them. TensorFlow lowers a program with variables only for a device that is
there (it refuses a `platform_name` alone), so that its HLO for this machine
is read: what makes no custom call is of operations that XLA has everywhere.
The graph it comes from is searched for operations of the host.
"""

import re
from collections.abc import Callable

import keras

PLATFORMS = ("cpu", "cuda", "tpu")
# They call Python.
_OF_THE_HOST = re.compile(r"PyFunc|Callback|XlaHost|Infeed|Outfeed")

Calls = dict[str, set[str]]


def lowered(function: Callable, *arguments) -> tuple[Calls, object]:
    """What a program calls that is no operation of XLA, and what it returns.

    Returns:
        Names by platform, and outputs of the right shapes, all ones.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return _by_tensorflow(tf.function, function, arguments)
    import jax

    return _by_jax(jax.jit, function, arguments)


def record(monkeypatch) -> list[Calls]:
    """From now on lower what the package compiles, in place of running it.

    Returns:
        A list that gets an entry of every program.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as home

        name, lower = "function", _by_tensorflow
    else:
        import jax as home

        name, lower = "jit", _by_jax
    original = getattr(home, name)
    found = []

    def compiled(function=None, **options):
        # Without that choice TensorFlow only traces, and Keras decorates.
        if name == "function" and not (function and "jit_compile" in options):
            return original(function, **options)

        def run(*arguments):
            calls, outputs = lower(original, function, arguments)
            found.append(calls)
            return outputs

        return run

    monkeypatch.setattr(home, name, compiled)
    return found


def _by_tensorflow(compiler, function, arguments):
    import tensorflow as tf

    program = compiler(function, jit_compile=True, autograph=False)
    concrete = program.get_concrete_function(*arguments)
    graph = concrete.graph.as_graph_def()
    nodes = list(graph.node)
    for part in graph.library.function:
        nodes += part.node_def
    calls = {node.op for node in nodes if _OF_THE_HOST.search(node.op)}
    if not calls:
        # It raises where XLA lacks an operation.
        text = program.experimental_get_compiler_ir(*arguments)(stage="hlo")
        calls.update(re.findall(r'custom_call_target="([^"]+)"', text))
    outputs = keras.tree.map_structure(
        lambda output: tf.ones(output.shape, output.dtype),
        concrete.structured_outputs,
    )
    return {"xla": calls}, outputs


def _by_jax(compiler, function, arguments):
    import jax
    from jax import export

    program = compiler(function)
    calls = {}
    for platform in PLATFORMS:
        exported = export.export(program, platforms=[platform])(*arguments)
        text = exported.mlir_module()
        calls[platform] = set(re.findall(r"custom_call @([\w$.]+)", text))
    outputs = [jax.numpy.ones(a.shape, a.dtype) for a in exported.out_avals]
    return calls, exported.out_tree.unflatten(outputs)
