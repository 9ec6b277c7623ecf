"""The tutorials run to their end, and are saved as they ran."""

import pathlib
import re
import warnings

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "tutorials").glob("*.ipynb"))
# Where somebody's machine keeps its files.
MACHINE = re.compile(r"/(?:home|root|tmp|usr|opt|Users|work|content)/\w")

pytestmark = pytest.mark.one_backend
every_tutorial = pytest.mark.parametrize(
    "path", TUTORIALS, ids=[path.stem for path in TUTORIALS]
)


def read(path):
    return nbformat.read(path, as_version=4)


def cells(notebook, kind):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_the_tutorials_are_found():
    assert len(TUTORIALS) >= 7


# Asks TensorFlow for devices before anything else has used it.
ALONE = "fine_tuning"


LONG = "small_gpt"


@pytest.mark.slow(reason="trains what the tutorial trains")
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            id=path.stem,
            marks=pytest.mark.weekly(reason="trains three language models")
            if path.stem == LONG
            else (),
        )
        for path in TUTORIALS
        if path.stem != ALONE
    ],
)
def test_the_code_of_a_tutorial_runs(path, tmp_path, monkeypatch):
    """In this process: a kernel for each would import TensorFlow again."""
    monkeypatch.setenv("KERAS_WD_QUICK", "1")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for number, cell in enumerate(cells(read(path), "code")):
            code = compile(cell.source, f"{path.name}, cell {number}", "exec")
            exec(code, names)


@pytest.mark.weekly(reason="a Jupyter kernel, which imports all again")
def test_a_tutorial_runs_in_jupyter(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_WD_QUICK", "1")
    # The kernel starts elsewhere, so that nothing of the checkout is at hand.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read(ROOT / "tutorials" / f"{ALONE}.ipynb")
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    last = cells(notebook, "code")[-1]
    assert last.execution_count == len(cells(notebook, "code"))


@every_tutorial
def test_a_tutorial_is_saved_as_it_ran_from_the_first_cell_on(path):
    found = cells(read(path), "code")
    counts = [cell.execution_count for cell in found]
    assert counts == list(range(1, len(found) + 1))
    outputs = [output for cell in found for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert not [o for o in outputs if o.get("name") == "stderr"]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert pictures


@every_tutorial
def test_a_tutorial_says_what_is_learned_and_what_comes_next(path):
    notebook = read(path)
    texts = [cell.source for cell in cells(notebook, "markdown")]
    assert texts[0].startswith("# ")
    assert "You will" in texts[0].replace("\n", " ")
    assert re.search("^## Next$", texts[-1], re.M)
    assert notebook.cells[-1].cell_type == "markdown"
    assert any("keras.datasets." in text for text in texts)


@every_tutorial
def test_a_tutorial_names_no_machine_and_only_files_that_are_there(path):
    found = MACHINE.search(path.read_text("utf-8"))
    assert not found, found
    for cell in cells(read(path), "markdown"):
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
            assert (path.parent / target).exists(), target
        for name in re.findall(r"`((?:docs|benchmarks)/\w+\.\w+)", cell.source):
            assert (ROOT / name).exists(), name


def test_the_documentation_lists_every_tutorial():
    page = (ROOT / "docs" / "tutorials.md").read_text("utf-8")
    listed = re.findall(r"`tutorials/(\w+)\.ipynb`", page)
    assert sorted(listed) == [path.stem for path in TUTORIALS]
