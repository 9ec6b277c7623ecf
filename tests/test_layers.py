"""The layers of the package: an import goes only down."""

import ast
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_wd"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400  # 300 is a signal to look for a second subject

BACKENDS = {"tensorflow", "jax", "torch"}
STUDY_ONLY = {"tensorflow_datasets", "matplotlib", "sklearn"}

# What a part of the package may import from it, besides itself. A part is
# the first name under keras_wd.
ALLOWED = {
    "ops": set(),
    "errors": set(),
    "patterns": set(),
    "where": {"errors", "patterns"},
    "schedules": {"errors"},
    "constraints": {"errors", "ops"},
    "regularizers": {"errors", "ops"},
    "backend": {"errors", "ops"},
    "decays": {"backend", "errors", "ops", "patterns", "schedules", "where"},
    "graph": {"backend", "decays", "errors", "ops", "where"},
    "masks": set(),
    "losses": {"errors", "masks"},
    "kfac": {"backend", "errors", "losses", "masks", "ops", "where"},
    "optimizers": {
        *("backend", "decays", "errors", "graph", "kfac", "losses", "ops"),
        *("schedules", "where"),
    },
}
# Whatever else there is stands above the optimizers.
ABOVE = {"callbacks", "metrics", "migrate", "tune", "study", "__main__"}


def name_of(path):
    return str(path.relative_to(ROOT))


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree):
    """(module, whether inside a function) of every import in a module."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in found:
            yield module, id(node) in inside


def roots(tree):
    return {module.split(".")[0] for module, _ in imports(tree)}


def dotted(path):
    """The name a module is imported by."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported_when_used():
    """Modules that no other module imports at its top."""
    top = {
        module
        for path in MODULES
        for module, inside in imports(parsed(path))
        if not inside
    }
    # `from a import b` may name the module a.b or something in a.
    top |= {module.rpartition(".")[0] for module in top}
    return {dotted(path) for path in MODULES} - top


def test_the_modules_are_found():
    assert {"ops", "decays", "optimizers", "where"} <= set(
        map(part_of, MODULES)
    )
    assert len(MODULES) > 30


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_keeps_to_its_layer(path):
    part, tree = part_of(path), parsed(path)
    found = list(imports(tree))
    if part != "backend":
        assert not BACKENDS & roots(tree), "only backend/ names a backend"
    for module, inside in found:
        assert not module.startswith("keras.src"), "only what is public"
        if module.split(".")[0] in STUDY_ONLY:
            assert part == "study", f"{module} belongs to study/"
            late = inside or dotted(path) in imported_when_used()
            assert late, f"{module} is imported when it is used"
    if part == "ops":
        others = roots(tree) - set(sys.stdlib_module_names)
        assert others <= {"keras", "numpy", "keras_wd"}
        # Pure math: of Keras, the ops and what tells one dtype from another.
        for module, _ in found:
            assert module in ("keras", "keras.ops") or (
                module.split(".")[0] != "keras"
            )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_inside_the_package_go_down(path):
    part = part_of(path)
    used = {
        module.split(".")[1]
        for module, _ in imports(parsed(path))
        if module.startswith("keras_wd.")
    }
    if part == "__init__":
        assert not used & {"study", "__main__"}
    elif part in ABOVE:
        assert not used & {"__main__", "migrate"}
        above = {"tune", "study"} - {part}
        assert part in ("study", "__main__") or not used & above
    else:
        assert part in ALLOWED, f"{part} has no layer: add it to this test"
        assert used <= ALLOWED[part] | {part}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_short_and_says_what_it_is_about(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST
    assert "util" not in path.stem and "helper" not in path.stem
    assert not lines or ast.get_docstring(parsed(path))


# The wrapper; and K-FAC, which needs all gradients of a step at once, after
# clipping and accumulation, for which Keras has no public place.
HOOKED = (
    "keras_wd/optimizers/weight_decay.py",
    "keras_wd/optimizers/kfac.py",
    "keras_wd/optimizers/curvature.py",
)


def optimizer_hooks():
    """The underscore names of Keras's own optimizers."""
    optimizer = keras.optimizers.SGD(0.1)
    return {
        name
        for name in {*dir(type(optimizer)), *vars(optimizer)}
        if name.startswith("_") and not name.startswith("__")
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_wrapper_uses_the_hooks_of_keras(path):
    hooks, tree = optimizer_hooks(), parsed(path)
    assert "_backend_update_step" in hooks and "_trainable_variables" in hooks
    used = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    } | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    # Names a class gives itself are its own.
    own = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    if name_of(path) in HOOKED:
        assert used & hooks
    else:
        foreign = sorted((used & hooks) - own)
        assert not foreign


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_an_init_file_is_a_table_of_contents(path):
    if path.name != "__init__.py":
        return
    allowed = (ast.ImportFrom, ast.Import, ast.Assign, ast.Expr, ast.If)
    for node in parsed(path).body:
        assert isinstance(node, allowed), f"line {node.lineno}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.name == "__init__.py"], ids=name_of
)
def test_all_is_sorted(path):
    for node in parsed(path).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            names = ast.literal_eval(node.value)
            assert names == sorted(names) and len(set(names)) == len(names)
