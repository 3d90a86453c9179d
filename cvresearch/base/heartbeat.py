"""Hosts that watch each other: a roll call at the start, then a sign of life every second.

Host 0 holds the meeting, a TCP port to which every host connects, itself too. Each sends a line a second and gets one.
A host whose connection breaks, or that is silent for too long, is named to all others, which print that and exit. JAX
itself would wait for minutes, or abort without a name.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from typing import cast

from cvresearch.base.errors import FAILED, HOST_LOST

BEAT_SECONDS = 1.0
GRACE_SECONDS = 5.0  # for a host to end by itself, of the same error as the one that told of it


class Coordinator(threading.Thread):
    """Host 0's side: knows who is there, and tells all who is not.

    Silence is counted in beats of this thread, not by the clock: where the whole machine was stopped for a while, the
    others were not silent. Host 0 hears last of what ends it: this thread ends with it, and to the others host 0
    would be the lost one.
    """

    def __init__(self, port: int, hosts: int, timeout: float):
        super().__init__(name='meeting', daemon=True)
        self._hosts, self._beats, self._timeout = hosts, max(1, round(timeout / BEAT_SECONDS)), timeout
        self._listening = socket.create_server(('', port), backlog=hosts)
        self._connections = selectors.DefaultSelector()
        self._connections.register(self._listening, selectors.EVENT_READ)
        self._buffers: dict[socket.socket, bytes] = {}
        self._silent: dict[int, int] = {}
        self._of: dict[int, socket.socket] = {}
        self._addresses: dict[int, str] = {}
        self._gone: set[int] = set()
        self._begun = False

    def run(self) -> None:
        """Goes on until the process ends."""
        beat, waited = time.monotonic(), 0
        while True:
            for key, _ in self._connections.select(BEAT_SECONDS / 4):
                self._accept() if key.fileobj is self._listening else self._read(cast(socket.socket, key.fileobj))
            if time.monotonic() - beat < BEAT_SECONDS:
                continue
            beat, waited = time.monotonic(), waited + 1
            self._tell({})
            if not self._begun:
                absent = [host for host in range(self._hosts) if host not in self._of]
                if not absent:
                    self._begun = True
                    self._tell({'go': _free_port()})
                elif waited >= self._beats:
                    who = ', '.join(f'host {host}' for host in absent)
                    self._tell({'lost': f'{who} of {self._hosts} did not start within {self._timeout:g} s'})
                    waited = 0
                continue
            for host in self._of.keys() - self._gone:
                self._silent[host] += 1
                if self._silent[host] > self._beats:
                    self._lose(host, f'has not answered for {self._timeout:g} s')

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        connection.settimeout(BEAT_SECONDS)  # of writing to a host that does not read
        self._connections.register(connection, selectors.EVENT_READ)
        self._buffers[connection] = b''

    def _read(self, connection: socket.socket) -> None:
        host = next((host for host, its in self._of.items() if its is connection), None)
        try:
            data = connection.recv(1 << 16)
        except OSError:
            data = b''
        if not data:
            self._close(connection)
            if host is not None:
                self._lose(host, 'was killed, or its connection broke')
            return
        if host is not None:
            self._silent[host] = 0
        *lines, self._buffers[connection] = (self._buffers[connection] + data).split(b'\n')
        for line in lines:
            try:
                self._hear(connection, json.loads(line))
            except (OSError, ValueError, TypeError, KeyError):  # gone already, or not one of us
                self._close(connection)
                return

    def _close(self, connection: socket.socket) -> None:
        self._connections.unregister(connection)
        connection.close()

    def _hear(self, connection: socket.socket, message: dict) -> None:
        host = next((host for host, its in self._of.items() if its is connection), None)
        if host is None:
            host = int(message['host'])
            if not 0 <= host < self._hosts or message['hosts'] != self._hosts or host in self._of:
                why = f'host {host} of {message["hosts"]} came to a run of {self._hosts} hosts'
                _send(connection, {'lost': f'{why}{", which is there already" if host in self._of else ""}'})
                return
            self._addresses[host] = connection.getpeername()[0]
            self._of[host], self._silent[host] = connection, 0
        elif 'bye' in message:
            self._gone.add(host)
            if host:
                _send(connection, {'over': True})
            if len(self._gone) == self._hosts:
                _send(self._of[0], {'over': True})
        elif 'failed' in message:
            self._gone.add(host)
            self._tell({'lost': f'host {host} stopped: {message["failed"]}', 'code': message['code']}, but=host)
            _send(connection, {'over': True})

    def _lose(self, host: int, how: str) -> None:
        if host in self._gone:
            return
        self._gone.add(host)
        self._tell({'lost': f'host {host} ({self._addresses[host]}) {how}'}, but=host)

    def _tell(self, message: dict, but: int | None = None) -> None:
        for host in sorted(self._of, reverse=True):
            if host != but and (host not in self._gone or not message):
                _send(self._of[host], message)


class Watch(threading.Thread):
    """One host's side. Ends the process where another host is missing.

    Args:
      host: the number of this host.
      hosts: how many there are.
      address: of the meeting, (name, port).
      timeout: seconds of silence.
    """

    def __init__(self, host: int, hosts: int, address: tuple[str, int], timeout: float):
        super().__init__(name='watch', daemon=True)
        self._host, self._hosts, self._address = host, hosts, address
        self._timeout, self._beats = timeout, max(1, round(timeout / BEAT_SECONDS))
        self._connection: socket.socket | None = None
        self._begun, self._over = threading.Event(), threading.Event()
        self.leaving = threading.Event()  # this host ends by itself
        self.port = 0

    def roll_call(self) -> tuple[str, int]:
        """Waits until all hosts are there; returns an address of host 0 that is free for JAX."""
        self.start()
        self._begun.wait()
        return self._address[0], self.port

    def run(self) -> None:
        """Goes on until the meeting is over or a host is missing."""
        self._connection = self._connected()
        if self._connection is None:
            return
        _send(self._connection, {'host': self._host, 'hosts': self._hosts})
        self._connection.settimeout(BEAT_SECONDS)
        rest, silent = b'', 0
        while not self._over.is_set():
            try:
                data = self._connection.recv(1 << 16)
            except TimeoutError:
                data, silent = None, silent + 1
            except OSError:
                data = b''
            if data == b'':
                return self._leave(f'host 0 ({self._address[0]}) was killed, or its connection broke')
            if data:
                silent = 0
                *lines, rest = (rest + data).split(b'\n')
                for line in lines:
                    self._hear(json.loads(line))
            elif silent > self._beats:
                return self._leave(f'host 0 ({self._address[0]}) has not answered for {self._timeout:g} s')
            _send(self._connection, {})

    def fail(self, reason: str, code: int) -> None:
        """Tells the others that this host stops, and why."""
        self._part({'failed': reason, 'code': code})

    def leave(self) -> None:
        """Tells the others that this host has done its part."""
        self._part({'bye': True})

    def verdict(self) -> None:
        """Waits whether another host is missing, which ends the process; returns where none is."""
        time.sleep(self._timeout + 2 * BEAT_SECONDS)

    def _part(self, word: dict) -> None:
        self.leaving.set()
        if self._connection:
            _send(self._connection, word)
            self._over.wait(GRACE_SECONDS)

    def _connected(self) -> socket.socket | None:
        for _ in range(5 * self._beats):
            try:
                return socket.create_connection(self._address, timeout=BEAT_SECONDS)
            except OSError:
                time.sleep(BEAT_SECONDS / 5)
        name, port = self._address
        self._leave(f'host 0 of {self._hosts} ({name}:{port}) did not start within {self._timeout:g} s')
        return None

    def _hear(self, message: dict) -> None:
        if 'go' in message:
            self.port = message['go']
            self._begun.set()
        elif 'over' in message:
            self._over.set()
        elif 'lost' in message:
            if 'code' in message:  # of an error that may be this host's too: then it says so itself
                self.leaving.wait(GRACE_SECONDS)
            self._leave(message['lost'], message.get('code', HOST_LOST))

    def _leave(self, why: str, code: int = HOST_LOST) -> None:
        if self.leaving.is_set():
            return
        print(
            f'error: {why}. Host {self._host} stops; the same command goes on from the last checkpoint',
            file=sys.stderr,
            flush=True,
        )
        os._exit(code or FAILED)  # at once: other threads wait for a host that is not there


class PortForward(threading.Thread):
    """A port of this host that leads to one of host 0.

    JAX aborts the process the moment that its connection to host 0 breaks, without saying which host it was. Through
    a passage the connection does not break, and the watch is the one to speak.
    """

    def __init__(self, to: tuple[str, int]):
        super().__init__(name='passage', daemon=True)
        self._to = to
        self._listening = socket.create_server(('127.0.0.1', 0))
        self.address = f'127.0.0.1:{self._listening.getsockname()[1]}'

    def run(self) -> None:
        """Goes on until the process ends."""
        while True:
            near, _ = self._listening.accept()
            far = self._reached()
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), name='passage', daemon=True).start()

    def _reached(self) -> socket.socket:
        while True:
            try:
                return socket.create_connection(self._to)
            except OSError:  # host 0 is not that far yet
                time.sleep(BEAT_SECONDS / 10)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):  # and the other connection stays as it is
        while data := source.recv(1 << 16):
            sink.sendall(data)


def _send(connection: socket.socket, message: dict) -> None:
    with contextlib.suppress(OSError):  # the other side notices that this one is silent, or gone
        connection.sendall(json.dumps(message).encode() + b'\n')


def _free_port() -> int:
    with socket.create_server(('', 0)) as server:
        return server.getsockname()[1]
