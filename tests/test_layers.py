"""The layers of the package: an import goes only down.

A test for each rule; it lists every place that breaks it.
"""

import ast
import functools
import importlib
import sys
from pathlib import Path

import keras
import pytest

pytestmark = pytest.mark.one_backend

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_wd"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400  # 300 is a signal to look for a second subject

BACKENDS = {"tensorflow", "jax", "torch"}
CLI_ONLY = {"tensorflow_datasets", "matplotlib", "sklearn"}

# What a part of the package may import from it, besides itself. A part is
# the first name under keras_wd.
ALLOWED = {
    "ops": {"backend"},
    "errors": set(),
    "patterns": set(),
    "selection": set(),
    "tables": set(),
    "roles": {"selection"},
    "where": {"errors", "patterns", "roles", "selection"},
    "schedules": {"errors"},
    "constraints": {"errors", "ops"},
    "regularizers": {"errors", "ops"},
    "backend": set(),
    "decays": {"backend", "errors", "ops", "patterns", "schedules", "where"},
    "graph": {"backend", "decays", "errors", "ops", "tables", "where"},
    "masks": set(),
    "losses": {"errors", "masks"},
    "variables": set(),
    "kfac": {
        *("backend", "errors", "losses", "masks", "ops", "tables"),
        *("variables", "where"),
    },
    "optimizers": {
        *("backend", "decays", "errors", "graph", "kfac", "losses", "ops"),
        *("schedules", "variables", "where"),
    },
}
# Whatever else there is stands above the optimizers.
ABOVE = {"callbacks", "metrics", "migrate", "tune", "cli", "__main__"}
# What a user types a dot after.
NAMESPACES = (
    *("callbacks", "constraints", "decays", "graph", "kfac", "metrics"),
    *("migrate", "ops", "optimizers", "regularizers", "schedules", "tune"),
    "where",
)


def name_of(path):
    return str(path.relative_to(ROOT))


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def imports(path):
    """(module, whether inside a function) of every import in a module."""
    tree = parsed(path)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: imports are absolute"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(module, id(node) in inside) for module in modules]
    return found


def roots(path):
    return {module.split(".")[0] for module, _ in imports(path)}


def dotted(path):
    """The name a module is imported by."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported_when_used():
    """Modules that no other module imports at its top."""
    top = {
        module
        for path in MODULES
        for module, inside in imports(path)
        if not inside
    }
    # `from a import b` may name the module a.b or something in a.
    top |= {module.rpartition(".")[0] for module in top}
    return {dotted(path) for path in MODULES} - top


def refused(rule):
    """Every breach of a rule, as `file: what`."""
    return [
        f"{name_of(path)}: {what}" for path in MODULES for what in rule(path)
    ]


def test_the_modules_are_found():
    assert {"ops", "decays", "optimizers", "where"} <= set(
        map(part_of, MODULES)
    )
    assert len(MODULES) > 30


def test_no_two_modules_have_one_name():
    names = [path.stem for path in MODULES if path.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


def test_only_backend_names_a_backend():
    def rule(path):
        return BACKENDS & roots(path) if part_of(path) != "backend" else ()

    assert not refused(rule)
    assert any(
        BACKENDS & roots(path) for path in MODULES if part_of(path) == "backend"
    )


def test_of_keras_only_what_is_public_is_imported():
    def rule(path):
        return [m for m, _ in imports(path) if m.startswith("keras.src")]

    assert not refused(rule)


def test_what_the_command_line_needs_is_imported_there_when_it_is_used():
    late = imported_when_used()

    def rule(path):
        for module, inside in imports(path):
            if module.split(".")[0] in CLI_ONLY:
                if part_of(path) != "cli" or not (
                    inside or dotted(path) in late
                ):
                    yield module

    assert not refused(rule)
    assert any(CLI_ONLY & roots(path) for path in MODULES)


def test_ops_are_pure_math():
    def rule(path):
        if part_of(path) != "ops":
            return
        others = roots(path) - set(sys.stdlib_module_names)
        yield from others - {"keras", "numpy", "keras_wd"}
        # Of Keras, the ops and what tells one dtype from another.
        for module, _ in imports(path):
            if module.split(".")[0] == "keras" and module not in (
                "keras",
                "keras.ops",
            ):
                yield module

    assert not refused(rule)


def test_imports_inside_the_package_go_down():
    def rule(path):
        part = part_of(path)
        used = {
            module.split(".")[1]
            for module, _ in imports(path)
            if module.startswith("keras_wd.")
        }
        if part == "__init__":
            return used & {"cli", "__main__"}
        if part in ABOVE:
            above = {"__main__", "migrate"}
            if part not in ("cli", "__main__"):
                above |= {"tune", "cli"} - {part}
            return used & above
        if part not in ALLOWED:
            return [f"{part} has no layer: add it to this test"]
        return used - ALLOWED[part] - {part}

    assert not refused(rule)


def test_a_module_is_short_and_says_what_it_is_about():
    def rule(path):
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > LONGEST:
            yield f"{len(lines)} lines"
        if "util" in path.stem or "helper" in path.stem:
            yield "its name says nothing"
        if lines and not ast.get_docstring(parsed(path)):
            yield "no docstring"

    assert not refused(rule)


# The wrapper; and K-FAC, which needs all gradients of a step at once, after
# clipping and accumulation, for which Keras has no public place.
HOOKED = (
    "keras_wd/optimizers/weight_decay.py",
    "keras_wd/optimizers/kfac.py",
    "keras_wd/optimizers/curvature_optimizer.py",
)


def optimizer_hooks():
    """The underscore names of Keras's own optimizers."""
    optimizer = keras.optimizers.SGD(0.1)
    return {
        name
        for name in {*dir(type(optimizer)), *vars(optimizer)}
        if name.startswith("_") and not name.startswith("__")
    }


def hooks_used(path, hooks):
    """The hooks a module reads or defines, but for what it names itself."""
    nodes = list(ast.walk(parsed(path)))
    attributes = [n for n in nodes if isinstance(n, ast.Attribute)]
    used = {n.attr for n in attributes}
    used |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
    own = {
        n.attr
        for n in attributes
        if isinstance(n.ctx, ast.Store)
        and isinstance(n.value, ast.Name)
        and n.value.id == "self"
    }
    return used & hooks, own


def test_only_the_wrapper_uses_the_hooks_of_keras():
    hooks = optimizer_hooks()
    assert "_backend_update_step" in hooks and "_trainable_variables" in hooks

    def rule(path):
        used, own = hooks_used(path, hooks)
        return () if name_of(path) in HOOKED else used - own

    assert not refused(rule)
    for name in HOOKED:
        assert hooks_used(ROOT / name, hooks)[0], f"{name} uses none any more"


def test_an_init_file_is_a_table_of_contents():
    allowed = (ast.ImportFrom, ast.Import, ast.Assign, ast.Expr, ast.If)

    def rule(path):
        if path.name == "__init__.py":
            for node in parsed(path).body:
                if not isinstance(node, allowed):
                    yield f"line {node.lineno}"

    assert not refused(rule)


def test_all_is_sorted():
    def rule(path):
        for node in parsed(path).body:
            if isinstance(node, ast.Assign) and (
                getattr(node.targets[0], "id", "") == "__all__"
            ):
                names = ast.literal_eval(node.value)
                if names != sorted(set(names)):
                    yield names

    assert not refused(rule)


def test_a_namespace_shows_only_what_it_offers():
    for name in NAMESPACES:
        module = importlib.import_module(f"keras_wd.{name}")
        assert module.__all__, name
        shown = {n for n in dir(module) if not n.startswith("_")}
        inside = set(module.__all__)
        if hasattr(module, "__path__"):
            # Python itself adds the modules of a package that are loaded.
            inside |= {path.stem for path in MODULES if part_of(path) == name}
        assert shown <= inside, (name, shown - inside)
