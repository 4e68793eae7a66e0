"""The DataLoader with names in its errors: which worker, what it was reading, and what to change."""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing.connection
import shutil
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from maskrcnn_benchmark.data.read_watch import SLOW_SECONDS, ReadWatch, watch_own_reads

SHARED_MEMORY = "/dev/shm"


class LoaderError(OSError):
    """The processes that load data cannot go on, for a reason that lies outside the program."""


class WatchedLoader(DataLoader):
    """A DataLoader whose workers are watched.

    Args:
        dataset, args, kwargs: as for DataLoader.
        num_workers: worker processes; 0: everything happens in this one.
        timeout: seconds that a batch may keep training waiting before the run ends; 0 for ever. Without workers nothing
            can end a read, which is only told of.
        worker_init_fn: called in each worker.
        slow_seconds: see ReadWatch.
    """

    def __init__(
        self,
        dataset: Any,
        *args: Any,
        num_workers: int = 0,
        timeout: float = 0.0,
        worker_init_fn: Callable[[int], Any] | None = None,
        slow_seconds: float = SLOW_SECONDS,
        **kwargs: Any,
    ) -> None:
        self.watch = ReadWatch(max(num_workers, 1), slow_seconds)
        super().__init__(
            dataset,
            *args,
            num_workers=num_workers,
            timeout=timeout if num_workers else 0,
            worker_init_fn=functools.partial(_init_worker, self.watch.table, worker_init_fn),
            **kwargs,
        )

    def __iter__(self) -> Iterator[Any]:
        """The batches.

        Raises:
            LoaderError: a worker died or does not answer, or shared memory is full.
        """
        if not self.num_workers:
            watch_own_reads(self.watch.table, 0)
        iterator = super().__iter__()
        self.watch.start()
        if self.num_workers:
            _DEATHS.take_over()
            _WORKERS.update(getattr(iterator, "_workers", []))
        while True:
            try:
                with _DEATHS.heard():
                    batch = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, ConnectionError, EOFError) as error:
                if not isinstance(error, RuntimeError):
                    _await_end(iterator)
                reason = explain_worker_failure(error, self._describe_workers(iterator))
                if reason is None:
                    raise
                _dismiss_workers(iterator)
                raise LoaderError(reason) from error
            yield batch

    def close(self) -> None:
        """End the workers; another iteration starts new ones."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None and self.num_workers:
            iterator._shutdown_workers()

    def _describe_workers(self, iterator: Any) -> str:
        """What the workers were doing that have died, or else those from which a batch is expected."""
        workers = getattr(iterator, "_workers", [])
        tasks = getattr(iterator, "_task_info", {})  # batch -> (worker,), or (worker, data) when it has come
        died = [number for number, worker in enumerate(workers) if worker.exitcode is not None]
        told = []
        for number in died or sorted({task[0] for task in tasks.values() if len(task) == 1}):
            ending = f", ended by {_name_exit(workers[number].exitcode)}," if number in died else ""
            told.append(f"worker {number}{ending} {self.watch.describe(number)}")
        return "; ".join(told)


class _Deaths:
    """Lets torch tell of dead workers only to those who wait for a batch.

    Its handler of SIGCHLD raises an error in whatever the main thread does when a worker dies: in the midst of writing
    a checkpoint too, or of telling the user what has happened.
    """

    def __init__(self) -> None:
        self._told: Any = None  # torch's handler
        self._someone_waits = False

    def take_over(self) -> None:
        """Take the place of torch's handler, if it is there; it is set by the first iterator with workers."""
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        if getattr(handler, "__module__", "") == signal_handling.__name__:
            self._told = handler
            signal.signal(signal.SIGCHLD, self._hear)

    def _hear(self, number: int, frame: Any) -> None:
        if self._someone_waits:
            self._told(number, frame)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Inside, dead workers raise RuntimeError, those too that died before."""
        before, self._someone_waits = self._someone_waits, True
        try:
            if self._told is not None:
                self._told(0, None)
            yield
        finally:
            self._someone_waits = before


_DEATHS = _Deaths()


def explain_worker_failure(error: BaseException, workers: str = "") -> str | None:
    """One sentence on a DataLoader's failure that the user can mend, None for any other error.

    Args:
        error: as torch's DataLoader raises it, also from its signal handler in the midst of something else.
        workers: what the workers were doing.
    """
    text = str(error)
    seen = f" ({workers})" if workers else ""
    if "Bus error" in text or "shared memory" in text or ("No space left on device" in text and "/torch_" in text):
        return (
            f"the loader's workers ran out of shared memory, {_describe_shared_memory()}{seen}; start the container "
            "with a larger one (docker run --shm-size=8g, in Kubernetes a memory volume at /dev/shm), or lower "
            "DATALOADER.NUM_WORKERS"
        )
    if "DataLoader timed out after" in text:
        return (
            f"no batch has come for {text.split('after ')[1].split()[0]} s, which is DATALOADER.TIMEOUT{seen}; see "
            "whether the disk or network behind the images answers, or raise DATALOADER.TIMEOUT"
        )
    broke_off = isinstance(error, ConnectionError | EOFError)  # a worker died while it handed a batch over
    if "DataLoader worker (pid" not in text and not broke_off:
        return None
    if "Killed" in text or "SIGKILL" in workers:
        return (
            f"a loader worker was killed by SIGKILL{seen}: most often the system does that when memory runs out; lower "
            "DATALOADER.NUM_WORKERS, or give the machine or container more memory"
        )
    first = "a loader worker broke off" if broke_off else text.splitlines()[0].split(". ")[0]
    return f"{first}{seen}; the log of the system may say why; DATALOADER.NUM_WORKERS 0 loads without workers"


def _init_worker(table: Any, then: Callable[[int], Any] | None, worker: int) -> None:
    # A scheduler signals all processes of a job; the run saves first, and then ends its workers by SIGKILL.
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    watch_own_reads(table, worker)
    if then is not None:
        then(worker)


def _await_end(iterator: Any) -> None:
    """Wait for the worker that is about to be gone: its connections break before there is an exit code."""
    workers = {worker.sentinel: worker for worker in getattr(iterator, "_workers", [])}
    for sentinel in multiprocessing.connection.wait(list(workers), timeout=5.0):
        workers[sentinel].join()


def _kill(workers: Iterable[Any]) -> None:
    for worker in list(workers):
        with contextlib.suppress(ValueError):  # it is closed
            worker.kill()


_WORKERS: weakref.WeakSet[Any] = weakref.WeakSet()
# At the end of the program multiprocessing sends SIGTERM, to which they do not listen, and waits for them.
atexit.register(_kill, _WORKERS)


def _dismiss_workers(iterator: Any) -> None:
    """End all workers, also those that are stuck."""
    if getattr(iterator, "_worker_pids_set", False):
        # Otherwise torch's signal handler would tell of the dead ones again whenever any process ends.
        signal_handling._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False
    _kill(getattr(iterator, "_workers", []))


def _name_exit(code: int) -> str:
    """An exit code as multiprocessing gives it: a signal is negative."""
    return signal.Signals(-code).name if code < 0 else f"status {code}"


def _describe_shared_memory() -> str:
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return "which this system has none to speak of"
    return f"of which {SHARED_MEMORY} has {usage.total / 2**20:.0f} MiB, {usage.free / 2**20:.0f} MiB of them free now"
