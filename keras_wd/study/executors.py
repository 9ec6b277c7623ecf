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
from collections.abc import Iterator
from collections.abc import Sequence

from keras_wd.study.errors import require

ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_JAX_THREADS = "--xla_cpu_multi_thread_eigen=false"
_WORKER = (sys.executable, "-m", "keras_wd.study.worker")
_LAST_LINES = 20

# What stands before an answer in the output of a worker.
ANSWER = "keras_wd answer: "

# (settings, folder of the run)
Job = tuple[dict, str]


def environment() -> dict[str, str]:
    """What the environment of a worker has besides."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {**ONE_THREAD, "XLA_FLAGS": f"{flags} {_JAX_THREADS}".strip()}


def local(
    jobs: Sequence[Job], workers: int, command: Sequence[str] = _WORKER
) -> Iterator[tuple[str, str]]:
    """Compute on this machine; yields (folder, what was wrong) as runs end.

    A worker is a Python process that does one run after the other.
    """
    workers = min(workers, len(jobs))
    started = [_Worker(command) for _ in range(workers)]
    free = queue.SimpleQueue()
    for worker in started:
        free.put(worker)
    stopping = threading.Event()

    def compute(job):
        worker = free.get()
        try:
            answer = worker.ask(job)
        except _Lost as error:
            answer = str(error)
            if not stopping.is_set():
                worker = _Worker(command)
                started.append(worker)
        free.put(worker)
        return job[1], answer

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(compute, job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        finally:
            stopping.set()
            for future in futures:
                future.cancel()
            for worker in started:
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


def on_ray(jobs: Sequence[Job], workers: int) -> Iterator[tuple[str, str]]:
    """Compute on the Ray cluster of `RAY_ADDRESS`, or one on this machine.

    The folders of the runs must be on a file system that all nodes share.
    """
    require("ray", extra="ray")
    import ray

    started = not ray.is_initialized()
    if started:
        arguments = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers}
        ray.init(
            log_to_driver=False,
            include_dashboard=False,
            runtime_env={"env_vars": environment()},
            **arguments,
        )

    @ray.remote(num_cpus=1)
    def compute(settings, folder):
        from keras_wd.study import worker

        return folder, worker.run(settings, folder)

    waiting = [compute.remote(*job) for job in jobs]
    try:
        while waiting:
            (done,), waiting = ray.wait(waiting)
            yield ray.get(done)
    finally:
        if started:
            ray.shutdown()


EXECUTORS = {"local": local, "ray": on_ray}
