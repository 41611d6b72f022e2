"""Empty tasks on Dask distributed: a scheduler and two workers of one thread, processes on
this machine. Prints [[tasks, tasks a second], ...]."""

import json
import time

from distributed import Client, LocalCluster, wait


def nothing(number):
    return number


def main():
    rates = []
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            client.gather(client.map(nothing, range(100), pure=False))
            for tasks in (10_000, 20_000):
                started = time.perf_counter()
                futures = client.map(nothing, range(tasks), pure=False)
                wait(futures)
                rates.append([tasks, tasks / (time.perf_counter() - started)])
                del futures
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
