"""Two workers of a distributed run, forked from a clean process that has fairseq imported.

Not from the test process: forking after autograd has run there can hang.
"""

import multiprocessing
import socket
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run_two_workers(worker, *arguments):
    """Call ``worker(rank, port, *arguments)`` in two processes; its results, in order of rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["processes_preload"])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    queue = context.Queue()
    processes = [
        context.Process(target=_report, args=(queue, worker, rank, port, arguments)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    # Before joining: a process does not end while its results are in the pipe.
    results = dict(queue.get(timeout=180) for _ in processes)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    return [results[rank] for rank in range(2)]


def _report(queue, worker, rank, port, arguments):
    try:
        queue.put((rank, worker(rank, port, *arguments)))
    except BaseException as error:
        queue.put((rank, repr(error)))
        raise
