"""What is reported of the processes that compute the runs."""

import importlib.util
import os
import signal
import sys

import pytest

from keras_wd.cli.executors import ANSWER
from keras_wd.cli.executors import local
from keras_wd.cli.executors import on_ray
from keras_wd.cli.executors import own_devices
from keras_wd.cli.usage_errors import UsageError

pytestmark = pytest.mark.one_backend


def answers(program, count=1):
    command = (sys.executable, "-S", "-c", program)
    jobs = [({}, f"run-{index}") for index in range(count)]
    return dict(local(jobs, 1, command))


def test_other_lines_on_the_output_of_a_worker_are_no_answers():
    program = f"""if True:
        import sys
        print('"a banner that is JSON"', flush=True)
        for number, line in enumerate(sys.stdin):
            print('{{"progress": 1}}')
            print("no end of line", end=" ")
            print({ANSWER!r} + '"%d"' % number, flush=True)
    """
    assert answers(program, 2) == {"run-0": "0", "run-1": "1"}


def test_the_last_errors_of_a_lost_worker_are_reported():
    program = """if True:
        import sys
        print("early", *range(50), sep="\\n", file=sys.stderr)
        sys.exit("out of luck")
    """
    (answer,) = answers(program).values()
    assert "ended with status 1" in answer
    assert answer.endswith("49\nout of luck")
    assert "early" not in answer


def test_a_worker_that_dies_in_silence_is_reported_by_its_status():
    (answer,) = answers("import os; os._exit(7)").values()
    assert answer == "the process of the run ended with status 7"


def test_a_run_whose_process_is_killed_goes_on_in_another(tmp_path):
    program = f"""if True:
        import os, pathlib, signal, sys
        for line in sys.stdin:
            tries = pathlib.Path({str(tmp_path)!r}, "tries")
            tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
            if len(tries.read_text()) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            print({ANSWER!r} + '""', flush=True)
    """
    assert answers(program, 3) == {"run-0": "", "run-1": "", "run-2": ""}
    assert (tmp_path / "tries").read_text() == "xxxx"


def test_what_is_appended_meanwhile_is_computed_as_well():
    program = f"""if True:
        import sys
        for number, line in enumerate(sys.stdin):
            print({ANSWER!r} + str(number), flush=True)
    """
    jobs = [({}, "run-0")]
    done = []
    for folder, _ in local(jobs, 1, (sys.executable, "-S", "-c", program)):
        done.append(folder)
        if len(done) < 4:
            jobs.append(({}, f"run-{len(done)}"))
    assert done == ["run-0", "run-1", "run-2", "run-3"]


CPU = {"Alive": True, "Resources": {"CPU": 16.0, "memory": 1e9}}
GPUS = {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 4.0}}
LOST = {"Alive": False, "Resources": {"GPU": 8.0}}
TPUS = {"Alive": True, "Resources": {"CPU": 100.0, "TPU": 8.0}}


@pytest.mark.parametrize(
    ("count", "nodes", "expected"),
    [
        (1, [CPU], {"num_cpus": 1, "num_gpus": 0}),
        (2, [CPU], {"num_cpus": 2, "num_gpus": 0}),
        (1, [CPU, GPUS], {"num_cpus": 1, "num_gpus": 1}),
        (4, [GPUS, LOST], {"num_cpus": 1, "num_gpus": 4}),
        (8, [TPUS], {"num_cpus": 1, "resources": {"TPU": 8}}),
    ],
)
@pytest.mark.every_case
def test_a_run_on_a_cluster_has_devices_of_its_own(count, nodes, expected):
    assert own_devices(count, nodes) == expected


def test_a_run_that_no_node_of_a_cluster_has_room_for_is_refused():
    with pytest.raises(UsageError, match="at most 4, the GPU devices"):
        own_devices(8, [GPUS, LOST])
    with pytest.raises(UsageError, match="needs --devices, the number of GPU"):
        own_devices(None, [GPUS])


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not here: pip install '.[ray]'",
)
@pytest.mark.slow(reason="starts a cluster")
@pytest.mark.filterwarnings("default")  # Ray's own
def test_a_run_whose_worker_on_a_cluster_is_killed_goes_on(tmp_path):
    def run(settings, folder):
        tries = len(os.listdir(tmp_path))
        (tmp_path / str(tries)).touch()
        if tries == settings["killed"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return ""

    found = list(
        on_ray([({"killed": 1}, f"run-{i}") for i in range(3)], 1, run)
    )
    assert sorted(found) == [("run-0", ""), ("run-1", ""), ("run-2", "")]
    assert len(os.listdir(tmp_path)) == 4
