"""A bad line to a service: what goes through comes late, and now and then the connection breaks."""

from __future__ import annotations

import random
import socket
import threading
import time

CHUNK_BYTES = 16_384


class BadLine:
    """Listens on `port`. `delay_s` each way; `loss`: the chance that a chunk breaks its connection instead."""

    def __init__(self, target: tuple[str, int], *, delay_s: float, loss: float, seed: int = 0) -> None:
        self.broken = 0
        self._target, self._delay_s, self._loss = target, delay_s, loss
        self._chance = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(CHUNK_BYTES):
                time.sleep(self._delay_s)
                if self._chance.random() < self._loss:
                    self.broken += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
