"""Where the runs of a comparison are computed: here, or on a Ray cluster.

Every run has the threads of one core and the same environment wherever it is
computed, so that its numbers do not depend on the executor.
"""

import concurrent.futures
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from keras_wd.cli import distribute
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line
from keras_wd.cli.usage_errors import require

ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_JAX_THREADS = "--xla_cpu_multi_thread_eigen=false"
_WORKER = (sys.executable, "-m", "keras_wd.cli.worker")
_LAST_LINES = 20
TRIES = 3  # of a run whose process is killed

# What stands before an answer in the output of a worker.
ANSWER = "keras_wd answer: "

# (settings, folder of the run), and up to which epoch if not to the end
Job = tuple[dict, str] | tuple[dict, str, int]


def environment() -> dict[str, str]:
    """What the environment of a worker has besides."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {
        **ONE_THREAD,
        **distribute.ALONE,
        "XLA_FLAGS": f"{flags} {_JAX_THREADS}".strip(),
    }


def local(
    jobs: list[Job], workers: int, command: Sequence[str] = _WORKER
) -> Iterator[tuple[str, str]]:
    """Compute on this machine; yields (folder, what was wrong) as runs end.

    A worker is a Python process that does one run after the other. A run
    whose process is killed goes on in another, from its last checkpoint.

    Args:
        jobs: what to compute; emptied. Those appended meanwhile are computed
            as well.
        workers: processes, at most.
        command: that starts one.
    """
    workers = min(workers, len(jobs))
    started = [_Worker(command) for _ in range(workers)]
    free = queue.SimpleQueue()
    for worker in started:
        free.put(worker)
    stopping = threading.Event()

    def compute(job):
        worker = free.get()
        for _ in range(TRIES):
            try:
                answer = worker.ask(job)
                break
            except _Lost as error:
                answer = str(error)
                if stopping.is_set():
                    break
                started.remove(worker)
                worker.stop()
                worker = _Worker(command)
                started.append(worker)
        free.put(worker)
        return job[1], answer

    waiting: set[concurrent.futures.Future] = set()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            while jobs or waiting:
                waiting |= {pool.submit(compute, job) for job in jobs}
                jobs.clear()
                done, waiting = concurrent.futures.wait(
                    waiting, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    yield future.result()
        finally:
            stopping.set()
            for future in waiting:
                future.cancel()
            for worker in list(started):
                worker.stop()


class _Lost(Exception):
    """A worker that ended without an answer."""


class _Worker:
    """A process that does runs one after the other."""

    def __init__(self, command):
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **environment()},
            text=True,
        )

    def ask(self, job):
        process = self._process
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        # Libraries print to the same stream.
        for line in process.stdout:
            _, mark, answer = line.partition(ANSWER)
            if mark:
                return json.loads(answer)
        raise _Lost(self._ending())

    def _ending(self):
        text = (
            f"the process of the run ended with status {self._process.wait()}"
        )
        self._errors.seek(0)
        last = self._errors.read().strip().splitlines()[-_LAST_LINES:]
        return "\n".join([f"{text}; it wrote last:", *last]) if last else text

    def stop(self):
        self._process.terminate()
        self._process.wait()
        for stream in (
            self._process.stdin,
            self._process.stdout,
            self._errors,
        ):
            try:
                stream.close()
            except BrokenPipeError:
                pass


def on_ray(
    jobs: list[Job], workers: int, run: Callable[..., str] | None = None
) -> Iterator[tuple[str, str]]:
    """Compute on the Ray cluster of `RAY_ADDRESS`, or one on this machine.

    Every run has accelerators of its own, or cores on a cluster without: one,
    or the `devices` that its settings `distribute` it over. The folders of the
    runs must be on a file system that all nodes share. A run whose worker or
    node is lost goes on elsewhere, from its checkpoint.

    Args:
        jobs: as of `local`.
        workers: of a cluster that is started here.
        run: what computes a job; by default the worker's.

    Raises:
        UsageError: if no node has so many devices.
    """
    require("ray", extra="ray")
    has_cluster = "RAY_ADDRESS" in os.environ
    if not has_cluster:
        # What Ray does for a cluster on one machine, with a warning if it is
        # not told to.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    run = run or _train
    shared = jobs[0][0].get("distribute", "none") != "none"
    count = jobs[0][0]["devices"] if shared else 1
    started = not ray.is_initialized()
    if started:
        arguments = {}
        if not has_cluster:
            cores = workers * (count or 1)
            arguments = {"address": "local", "num_cpus": cores}
        ray.init(
            log_to_driver=False,
            include_dashboard=False,
            runtime_env={"env_vars": environment()},
            **arguments,
        )
    folders = {}
    try:
        compute = ray.remote(
            max_retries=TRIES - 1, **own_devices(count, ray.nodes())
        )(run)
        while jobs or folders:
            folders.update({compute.remote(*job): job[1] for job in jobs})
            jobs.clear()
            (done,), _ = ray.wait(list(folders))
            folder = folders.pop(done)
            try:
                problem = ray.get(done)
            except ray.exceptions.RayError as error:
                problem = f"{type(error).__name__}: {first_line(error)}"
            yield folder, problem
    finally:
        if started:
            ray.shutdown()


def _train(*job):
    from keras_wd.cli import worker

    return worker.run(*job)


def own_devices(count: int | None, nodes: Sequence[Mapping]) -> dict:
    """What Ray sets aside for a run, as arguments of `ray.remote`.

    Args:
        count: devices of a run; None if the user has not said.
        nodes: of the cluster, as of `ray.nodes`.

    Raises:
        UsageError: if no node has so many.
    """
    nodes = [node["Resources"] for node in nodes if node["Alive"]]
    kind = next(
        (kind for kind in ("GPU", "TPU") if any(kind in n for n in nodes)),
        "CPU",
    )
    if count is None:
        raise UsageError(
            "--distribute=data with --executor=ray needs --devices, the "
            f"number of {kind} devices of each run"
        )
    most = int(max(node.get(kind, 0) for node in nodes))
    if count > most:
        raise UsageError(
            f"--devices must be at most {most}, the {kind} devices of the "
            f"largest node of the cluster. Received: --devices={count}"
        )
    if kind == "TPU":
        return {"num_cpus": 1, "resources": {"TPU": count}}
    return {"num_cpus": 1, "num_gpus": 0, f"num_{kind.lower()}s": count}


EXECUTORS: dict[str, Callable[[list[Job], int], Iterator[tuple[str, str]]]]
EXECUTORS = {"local": local, "ray": on_ray}
