"""Blocks of a sweep on a Dask cluster: processes of this machine, or whatever a scheduler has.

A worker computes a block, writes it itself and returns only its name, so that nothing that is done is lost with a worker;
what it was at is done again elsewhere. A worker that starts a block looks first whether another has written it.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from armillary.errors import InvalidValue
from armillary.store.files import StoreError
from armillary.sweeps.record import Job, Record

PATIENCE = 10.0
"""Seconds in which a scheduler must answer."""

MOST = 256
"""Processes that a local cluster may have."""


def compute_on(cluster: str, record: Record, jobs: Sequence[Job], board: Any) -> None:
    """Compute blocks on `local:N` processes or at a scheduler's address (`tcp://host:port`).

    Raises `InvalidValue` for another name, and where no scheduler answers.
    """
    with _client(cluster) as client:
        from distributed import as_completed

        plan = client.scatter(record, broadcast=True)
        futures = {
            client.submit(_work, plan, job, key=f"{record.folder.name}-{job.name}", pure=False): job for job in jobs
        }
        for future in as_completed(futures):
            job = futures[future]
            error = future.exception()
            if isinstance(error, StoreError):
                client.cancel(list(futures))
                raise error
            said = record.failed().get(job.name)
            if error is not None:  # the worker died more often than Dask tries
                from armillary.sweeps.sweep import write_failure

                said = write_failure(record, job, error)
            board.failed(job, said) if said else board.finished(job)


def _work(record: Record, job: Job) -> str:
    from armillary.sweeps.board import Quiet
    from armillary.sweeps.sweep import compute

    return compute(record, job, Quiet())


@contextlib.contextmanager
def _client(cluster: str) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise InvalidValue("a cluster needs Dask: pip install 'armillary[cluster]'") from None
    if local := re.fullmatch(r"local:(\d{1,4})", cluster):
        count = int(local[1])
        if not 1 <= count <= MOST:
            raise InvalidValue(f"the cluster has {count} processes, but must have 1 to {MOST} (--cluster local:4)")
        # One thread each: the netCDF library is not safe for more, and XLA uses the cores by itself.
        settings: Any = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**settings) as own, Client(own) as client:
            yield client
        return
    if not re.fullmatch(r"(tcp|tls|ucx|ws|wss)://[^\s/]+:\d+", cluster):
        raise InvalidValue(
            f"the cluster is {cluster!r}, but must be local:N or a scheduler's address, as tcp://host:8786"
        )
    try:
        client = Client(cluster, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise InvalidValue(f"no scheduler answers at {cluster}: {str(error).splitlines()[0]}") from None
    with client:
        yield client
