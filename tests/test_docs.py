"""The code of the documentation runs as it is printed."""

import importlib.util
import os
import pathlib
import re
import warnings

import keras
import pytest

from benchmarks import __main__ as benchmarks
from tests import catalogue

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
PROGRAMS = {
    str(page.relative_to(ROOT)): BLOCK.findall(page.read_text("utf-8"))
    for page in PAGES
}


def test_the_pages_with_code_are_found():
    assert len([page for page in PROGRAMS if PROGRAMS[page]]) >= 6


# What a page needs to come out as it says.
ENOUGH_EPOCHS = 30


SLOW = {
    "docs/deploying.md": "exports in every format",
    "docs/experiments.md": "trains in several tools",
    "docs/text.md": "trains and generates with KerasHub",
}
# Tools that the README's environment does not have: CONTRIBUTING.md installs
# them, and a block that imports one is run where it is there.
TOOLS = ("keras_hub", "optuna", "keras_tuner", "ray", "mlflow", "wandb")


def tools_of(block):
    imported = re.findall(r"^(?:import|from) (\w+)", block, re.M)
    return [name for name in imported if name in TOOLS]


def needs_what_is_not_here(block):
    return not all(map(importlib.util.find_spec, tools_of(block)))


@pytest.mark.every_case
@pytest.mark.parametrize(
    "page",
    catalogue.slow_ones([page for page in PROGRAMS if PROGRAMS[page]], SLOW),
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    if needs_what_is_not_here(PROGRAMS[page][0]):
        pytest.skip(f"needs {', '.join(tools_of(PROGRAMS[page][0]))}")
    monkeypatch.chdir(tmp_path)
    fit = keras.Model.fit

    def shorter(model, *args, epochs=1, **kwargs):
        few = epochs if epochs <= ENOUGH_EPOCHS else 2
        return fit(model, *args, epochs=few, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", shorter)
    page_globals = {"__name__": "__main__"}
    for number, block in enumerate(PROGRAMS[page]):
        if needs_what_is_not_here(block):
            continue
        code = compile(block, f"{page}, block {number + 1}", "exec")
        with warnings.catch_warnings():
            if tools_of(block):
                warnings.simplefilter("default")  # theirs are no errors
            exec(code, page_globals)
    assert "None\n" not in capsys.readouterr().out


def test_links_between_the_pages_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_every_command_of_the_readme_names_a_file_that_is_there():
    text = (ROOT / "README.md").read_text("utf-8")
    named = re.findall(r"`(?:python )?((?:benchmarks|tutorials)/[\w./]+)", text)
    assert named
    for name in named:
        assert os.path.exists(ROOT / name), name


def test_the_map_of_the_code_names_files_that_are_there():
    text = (ROOT / "docs/design.md").read_text("utf-8")
    named = re.findall(r"`((?:\w+/)*(?:\w+\.py|\w+/))`", text)
    assert len(named) > 40
    for name in named:
        assert (ROOT / "keras_wd" / name).exists() or (ROOT / name).exists()


def test_every_benchmark_is_listed_and_no_other(capsys):
    assert benchmarks.main(["list"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    text = "".join(page.read_text("utf-8") for page in PAGES)
    named = set(re.findall(r"python -m benchmarks (\w+)", text)) - {"list"}
    assert named and named <= listed
    assert benchmarks.main(["spede"]) == 2
    assert "Did you mean 'speed'?" in capsys.readouterr().err


def test_the_readme_states_the_range_of_the_speed_table():
    speed = (ROOT / "docs/speed.md").read_text("utf-8")
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    for backend, name in ("tensorflow", "TensorFlow"), ("jax", "JAX"):
        section = speed.split(f"cores, {backend}\n")[1].split("\n### ")[1]
        around_adam = re.findall(
            r"^\| (?:L2|L2, coupled|L1|Lp, [^|]*|PAdam) \| \S+ \| (\S+) ",
            section,
            re.M,
        )
        assert len(around_adam) >= 10
        low, high = min(around_adam), max(around_adam)
        (stated,) = re.findall(
            rf"([\d.]+ to [\d.]+) times[^,]*on {name}", readme
        )
        assert stated == f"{low} to {high}"
