"""The no-op handler for mosec: bytes in, bytes out, no serialisation; the environment says the batch size."""

import os

from mosec import Server, Worker

BATCH_SIZE = int(os.environ["BENCH_BATCH_SIZE"])
BATCH_WAIT_MS = int(os.environ["BENCH_BATCH_WAIT_MS"])


class Noop(Worker):
    """Answers each request with two bytes."""

    def deserialize(self, data):
        return data

    def serialize(self, data):
        return data

    def forward(self, data):
        return b"ok" if BATCH_SIZE == 1 else [b"ok"] * len(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Noop, num=1, max_batch_size=BATCH_SIZE, max_wait_time=BATCH_WAIT_MS)
    server.run()
