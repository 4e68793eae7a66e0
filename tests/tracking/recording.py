"""A tracker that writes down what it is told, and can be made to fail or to hang."""

from __future__ import annotations

import threading


class RecordingTracker:
    """Calls as tuples (method, arguments).

    Args:
        fails: methods that raise, each call of theirs.
        hangs: methods that do not return until ``release`` is set.
        error: what is raised.
    """

    name = "recording"

    def __init__(self, *, fails=(), hangs=(), error=None):
        self.calls = []
        self.runs = []
        self.threads = set()
        self.fails, self.hangs = set(fails), set(hangs)
        self.error = error or RuntimeError("the server said no")
        self.release = threading.Event()

    def start(self, run):
        self.runs.append(run)
        self._take("start", run.run_id)
        return run.run_id or f"run-{len(self.runs)}"

    def metrics(self, values, iteration):
        self._take("metrics", dict(values), iteration)

    def figure(self, name, path, iteration):
        self._take("figure", name, path, iteration)

    def artifact(self, name, path):
        with open(path, "rb") as file:
            self._take("artifact", name, file.read())

    def finish(self, status):
        self._take("finish", status)

    def of(self, method):
        return [call[1:] for call in self.calls if call[0] == method]

    def _take(self, method, *arguments):
        self.threads.add(threading.current_thread().name)
        self.calls.append((method, *arguments))
        if method in self.hangs:
            self.release.wait(60)
        if method in self.fails:
            raise self.error
