"""Every public name is explained, and every example in it runs."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import keras_wd
from tests import catalogue


def modules():
    """All modules but the command line's, which has flags of its own."""
    for info in pkgutil.walk_packages(keras_wd.__path__, "keras_wd."):
        name = info.name
        parts = name.split(".")
        if parts[1] in ("cli", "__main__"):
            continue
        if parts[1] == "backend" and len(parts) > 2:
            # A file per backend; the one in use is loaded by the package.
            continue
        yield importlib.import_module(name)


def public():
    """(qualified name, object) of what the public modules export."""
    seen = {}
    for module in [keras_wd, *modules()]:
        for name in getattr(module, "__all__", ()):
            seen[f"{module.__name__}.{name}"] = getattr(module, name)
    return seen


PUBLIC = public()
PUBLIC_HOMES = {
    f"{item.__module__}.{item.__qualname__}"
    for item in PUBLIC.values()
    if inspect.isclass(item) or inspect.isfunction(item)
}


def documented():
    """Every docstring written in the package, by the name of its owner."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {}
    for module in [keras_wd, *modules()]:
        for test in finder.find(module, module.__name__):
            if test.docstring:
                found[test.name] = test
    return found


DOCUMENTED = documented()
WITH_EXAMPLES = {n: t for n, t in DOCUMENTED.items() if t.examples}


def test_the_public_names_are_found():
    for name in (
        "keras_wd.decays.Lp",
        "keras_wd.ops.prox_lp",
        "keras_wd.optimizers.WeightDecay",
        "keras_wd.metrics.sparsity",
    ):
        assert name in PUBLIC
    assert len(WITH_EXAMPLES) > 20


def test_a_public_name_is_explained():
    missing = []
    for name, item in PUBLIC.items():
        # Not the docstring of a base class.
        own = not inspect.isclass(item) or "__doc__" in vars(item)
        text = inspect.cleandoc(item.__doc__ or "") if own else ""
        first = text.partition("\n")[0]
        if not first or not (first.endswith((".", ":")) or "`" in first):
            missing.append(name)
    assert not missing


def arguments(item):
    """The parameters a public name declares itself."""
    function = item.__init__ if inspect.isclass(item) else item
    if inspect.isclass(item) and "__init__" not in vars(item):
        return []
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.name != "self"]


def test_the_arguments_of_a_public_name_are_explained_and_typed():
    unexplained, untyped = [], []
    for name, item in PUBLIC.items():
        if not (inspect.isclass(item) or inspect.isfunction(item)):
            continue
        text = item.__doc__ or ""
        for parameter in arguments(item):
            label = f"{name}: {parameter.name}"
            line = rf"^\s+\**{parameter.name}\b"
            if "Args:" in text and not re.search(line, text, re.M):
                unexplained.append(label)
            if name.split(".")[1] != "ops" and parameter.kind not in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            ):
                if parameter.annotation is parameter.empty:
                    untyped.append(label)
    assert not unexplained
    assert not untyped


def test_a_public_class_has_an_example():
    without = [
        name
        for name, item in PUBLIC.items()
        if inspect.isclass(item)
        and not inspect.isabstract(item)
        and name.split(".")[1] != "kfac"
        and f"{item.__module__}.{item.__qualname__}" not in WITH_EXAMPLES
    ]
    assert not without


SLOW = {"keras_wd.tune.probes.predict_weight_decay": "trains several networks"}


@pytest.mark.parametrize(
    "name", catalogue.slow_ones(sorted(WITH_EXAMPLES), SLOW)
)
def test_the_examples_run(name):
    runner = doctest.DocTestRunner(verbose=False)
    report = []
    test = WITH_EXAMPLES[name]
    if name in PUBLIC_HOMES:
        # The example of a public name imports what it uses.
        test.globs = {"__name__": "__main__"}
    result = runner.run(test, out=report.append, clear_globs=True)
    assert result.attempted and not result.failed, "".join(report)
