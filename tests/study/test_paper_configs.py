"""The ready settings of a paper."""

import importlib.util
import json
import pathlib

from keras_wd.study import config

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
PATHS = sorted((CONFIGS / "three_mechanisms").glob("*.json"))


def test_the_files_are_those_of_the_table():
    path = CONFIGS / "three_mechanisms.py"
    spec = importlib.util.spec_from_file_location("three_mechanisms", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = {p.stem: json.loads(p.read_text())["flags"] for p in PATHS}
    assert written == module.configurations() and len(written) == 64
    for path in PATHS:
        settings = config.from_command_line([f"--config={path}"])
        flags = written[path.stem]
        assert {name: settings[name] for name in flags} == flags
