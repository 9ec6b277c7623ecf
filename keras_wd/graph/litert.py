"""How large and how fast models are in LiteRT, where they are deployed."""

import dataclasses
import importlib
import importlib.util
import os
import tempfile
from typing import Any

import keras
import numpy as np

from keras_wd.graph import verify
from keras_wd.graph.sizes import median_milliseconds

_INTERPRETER = "ai_edge_litert"


@dataclasses.dataclass(frozen=True)
class LiteRT:
    """A model in LiteRT.

    Attributes:
        file_bytes: of the `.tflite` file.
        milliseconds: median time of the batch on one thread; None if it was
            not timed.
    """

    file_bytes: int
    milliseconds: float | None


def check_litert(wanted: bool, report: bool) -> None:
    """Raise if LiteRT is wanted and nothing here can measure or report it."""
    if not wanted:
        return
    if not report:
        raise ValueError(
            "`litert=True` must be given with `report=True`, where its sizes "
            f"and times go. Received: report={report!r}"
        )
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`litert=True` must be used on the TensorFlow backend, from which "
            f"Keras exports. Received: {keras.backend.backend()}"
        )
    if importlib.util.find_spec(_INTERPRETER) is None:
        raise ValueError(
            f"`litert=True` needs {_INTERPRETER}, which is not installed: "
            "pip install 'keras_wd[export]'"
        )


def measured(
    models: dict[str, keras.Model], batch: object, timed: bool
) -> dict[str, LiteRT]:
    """Every model in LiteRT, with the outputs it has in Keras.

    Args:
        models: by name.
        batch: what to run them on.
        timed: whether to time that.

    Raises:
        ValueError: if a model cannot be exported, or has other outputs there.
    """
    interpreter = importlib.import_module(f"{_INTERPRETER}.interpreter")
    programs, sizes = {}, {}
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.tflite")
            try:
                model.export(path, format="litert", verbose=False)
            except Exception as error:  # whatever the converter raises
                said = " ".join(str(error).split())[:300]
                raise ValueError(
                    "`model` must be one that Keras exports to LiteRT. "
                    f"Received: {type(error).__name__}: {said}"
                ) from error
            sizes[name] = os.path.getsize(path)
            with open(path, "rb") as file:
                content = file.read()
        try:
            program = interpreter.Interpreter(model_content=content)
            runner = program.get_signature_runner()
            programs[name] = _Program(runner, model, batch)
            programs[name].run()
        except RuntimeError as error:
            said = " ".join(str(error).split())[:300]
            raise ValueError(
                "`model` must consist of operations that the interpreter of "
                f"LiteRT has. Received: RuntimeError: {said}"
            ) from error
        programs[name].compare(model, batch)
    times: dict[str, float] = {}
    if timed:
        runs = {name: program.run for name, program in programs.items()}
        times = median_milliseconds(runs)
    return {name: LiteRT(sizes[name], times.get(name)) for name in models}


class _Program:
    """A model in LiteRT, and the batch as it takes it."""

    def __init__(self, runner: Any, model: keras.Model, batch: object):
        self._runner = runner
        names = list(runner.get_input_details())
        arrays = [
            keras.ops.convert_to_numpy(leaf)
            for leaf in keras.tree.flatten(batch)
        ]
        known = [tensor.name for tensor in model.inputs]
        if len(names) > 1 and set(names) == set(known):
            names = known
        elif len(names) > 1:
            raise ValueError(
                "`model` must have inputs that LiteRT calls by their names. "
                f"Received: {known}, which are {names} there."
            )
        self._inputs = dict(zip(names, arrays, strict=True))

    def run(self) -> list[np.ndarray]:
        """The outputs, in order."""
        made = self._runner(**self._inputs)
        # Those of a list are called output_0, output_1, ...; those of a dict
        # by their keys, which Keras sorts.
        numbered = all(name.startswith("output_") for name in made)
        return [made[n] for n in sorted(made, key=_length if numbered else str)]

    def compare(self, model: keras.Model, batch: object) -> None:
        """Raise unless the outputs are those of the model in Keras."""
        expected = verify.outputs(model, batch)
        found = [output.astype("float64") for output in self.run()]
        apart = max(
            verify.difference(*pair)
            for pair in zip(expected, found, strict=True)
        )
        allowed = verify.tolerance(model)
        if not apart <= allowed:
            raise ValueError(
                "`model` must have the same outputs in LiteRT. Received: a "
                f"difference of {apart:.1e} of the largest entry, where "
                f"{allowed:.0e} is rounding."
            )


def _length(name):
    return len(name), name
