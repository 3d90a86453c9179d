"""Servers of Google's and Amazon's storage on this machine, and a line between that fails.

moto's own server is S3's; the one of gcp-storage-emulator is Google's. `Line` stands before either as a network does,
and as far as Google's emulator lacks it, as the server: an upload with `ifGenerationMatch=0` finds no object of that
name, or gets a 412; and the last byte of an object may be a carriage return.
"""

import contextlib
import logging
import multiprocessing
import os
import random
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, urlsplit

PACKAGES = {'gs': ('gcsfs', 'gcp_storage_emulator'), 's3': ('s3fs', 'moto')}
KEYS = {'AWS_ACCESS_KEY_ID': 'x', 'AWS_SECRET_ACCESS_KEY': 'x', 'AWS_DEFAULT_REGION': 'us-east-1'}
BUCKET = 'lab'
END = b'\n--==0==--'  # of gcsfs' uploads
FAULTS = ('drop', 'delay', 'truncate', '429', '503', 'lost answer')


class Line(threading.Thread):
    """A port that leads to a server, one request and one connection at a time each, and spoils some of them.

    Attributes:
      share: of the requests that are spoilt; set at any time.
      down: nothing gets through at all.
      latency: seconds that every request takes longer.
      counts: how many were spoilt, by fault.
      requests: how many there were.
    """

    def __init__(self, to: tuple[str, int], share: float = 0.0, seed: int = 0, kinds: tuple[str, ...] = FAULTS):
        super().__init__(name='line', daemon=True)
        self._to, self._random, self._kinds = to, random.Random(seed), kinds
        self._turn, self._creating = threading.Lock(), threading.Lock()
        self.share, self.down, self.latency = share, False, 0.0
        self.requests, self.counts = 0, dict.fromkeys((*FAULTS, *kinds), 0)
        self._listening = socket.create_server(('127.0.0.1', 0), backlog=64)
        self.port = self._listening.getsockname()[1]
        self.start()

    def run(self) -> None:
        """Goes on until the process ends."""
        while True:
            near, _ = self._listening.accept()
            threading.Thread(target=self._served, args=(near,), name='line', daemon=True).start()

    def _served(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError, ValueError):
            near.settimeout(120)
            stream = near.makefile('rb')
            while head := _head(stream):
                if b'100-continue' in head.lower():
                    near.sendall(b'HTTP/1.1 100 Continue\r\n\r\n')
                self._one(near, head, _body(stream, head))

    def _one(self, near: socket.socket, head: bytes, body: bytes) -> None:
        with self._turn:
            self.requests += 1
            fault = self._random.choice(self._kinds) if self._random.random() < self.share else ''
            if fault:
                self.counts[fault] += 1
        if self.down or fault == 'drop':
            raise OSError('dropped')
        time.sleep(self.latency)
        if fault == 'delay':
            time.sleep(self._random.uniform(0.2, 2.0))
        if fault.isdigit():
            said = 'Forbidden' if fault == '403' else 'Busy'
            near.sendall(f'HTTP/1.1 {fault} {said}\r\nContent-Length: 4\r\nRetry-After: 0\r\n\r\nbusy'.encode())
            return
        answer = self._conditional(head, body)
        if fault == 'lost answer':
            raise OSError('the server has done it, and nobody hears')
        if fault == 'truncate':
            near.sendall(answer[: max(1, len(answer) * 2 // 3)])
            raise OSError('cut off')
        near.sendall(answer)

    def _conditional(self, head: bytes, body: bytes) -> bytes:
        target = urlsplit(head.split(b' ', 2)[1].decode())
        asked = parse_qs(target.query)
        if asked.get('ifGenerationMatch') != ['0']:
            return self._asked(head, body)
        match = re.search(rb'"name": ?"([^"]+)"', body)
        name = asked['name'][0] if 'name' in asked else match[1].decode() if match else ''
        bucket = target.path.split('/b/')[1].split('/')[0]
        with self._creating:
            there = f'http://{self._to[0]}:{self._to[1]}/storage/v1/b/{bucket}/o/{quote(name, safe="")}'
            try:
                urllib.request.urlopen(there, timeout=10).read()
            except urllib.error.HTTPError:
                return self._asked(head, body)
        said = b'{"error": {"code": 412, "message": "conditionNotMet"}}'
        return b'HTTP/1.1 412 Precondition Failed\r\nContent-Length: %d\r\n\r\n%s' % (len(said), said)

    def _asked(self, head: bytes, body: bytes) -> bytes:
        """Returns the server's answer as it came; the server closes the connection after it."""
        if body.endswith(
            b'\r' + END
        ):  # Google's emulator would take the last byte of the content for a part of the end
            body = body.removesuffix(END) + b'\r' + END
            head = re.sub(rb'(?i)(content-length: *)\d+', rb'\g<1>%d' % len(body), head)
        lines = [line for line in head.split(b'\r\n') if not line.lower().startswith((b'connection:', b'expect:'))]
        lines = [line for line in lines if not line.lower().startswith(b'transfer-encoding:')]
        if not any(line.lower().startswith(b'content-length:') for line in lines) and body:
            lines.insert(1, b'Content-Length: %d' % len(body))
        lines.insert(1, b'Connection: close')
        with socket.create_connection(self._to, timeout=120) as far:
            far.sendall(b'\r\n'.join(line for line in lines if line) + b'\r\n\r\n' + body)
            parts = []
            while part := far.recv(1 << 16):
                parts.append(part)
        return _closing(b''.join(parts))


def _closing(answer: bytes) -> bytes:
    """Returns an answer that says how long it is, so that the connection to the client can stay."""
    head, _, body = answer.partition(b'\r\n\r\n')
    lines = [line for line in head.split(b'\r\n') if not line.lower().startswith(b'connection:')]
    if not any(line.lower().startswith((b'content-length:', b'transfer-encoding:')) for line in lines):
        lines.append(b'Content-Length: %d' % len(body))
    return b'\r\n'.join(lines) + b'\r\n\r\n' + body


def _head(stream) -> bytes:
    lines = []
    while (line := stream.readline()) not in (b'', b'\r\n'):
        lines.append(line)
    return b''.join(lines)


def _body(stream, head: bytes) -> bytes:
    headers = {}
    for line in head.split(b'\r\n')[1:]:
        name, _, value = line.partition(b':')
        headers[name.strip().lower()] = value.strip()
    if b'content-length' in headers:
        body = stream.read(size := int(headers[b'content-length']))
        if len(body) < size:  # its process was killed; Google's emulator would wait for the rest, and serve nobody
            raise OSError('half a request')
        return body
    parts = []
    if headers.get(b'transfer-encoding', b'').lower() == b'chunked':
        while size := int(stream.readline().split(b';')[0], 16):  # ValueError at the end of a half one
            parts.append(stream.read(size))
            stream.readline()
        stream.readline()
    return b''.join(parts)


@contextlib.contextmanager
def server(scheme: str, **faults) -> Iterator[tuple[Line, dict[str, str]]]:
    """Starts a server of a scheme with the bucket `lab`, and a line to it.

    Yields:
      The line, and the environment with which programs take it for the cloud.
    """
    if scheme == 's3':
        from moto.server import ThreadedMotoServer

        started = ThreadedMotoServer(ip_address='127.0.0.1', port=0)
        started.start()
        host, port = started.get_host_and_port()
        line = Line((host, port), **faults)
        urllib.request.urlopen(
            urllib.request.Request(f'http://{host}:{port}/{BUCKET}', method='PUT', headers={'Host': f'{host}:{port}'})
        )
        environment = KEYS | {'AWS_ENDPOINT_URL': f'http://127.0.0.1:{line.port}'}
    else:
        from gcp_storage_emulator.server import create_server

        with socket.create_server(('127.0.0.1', 0)) as free:
            port = free.getsockname()[1]
        started = create_server('127.0.0.1', port, in_memory=True, default_bucket=BUCKET)
        started.start()
        line = Line(('127.0.0.1', port), **faults)
        environment = {'STORAGE_EMULATOR_HOST': f'http://127.0.0.1:{line.port}', 'GOOGLE_CLOUD_PROJECT': 'lab'}
    try:
        yield line, environment
    finally:
        started.stop()


@contextlib.contextmanager
def elsewhere(scheme: str, latency: float = 0.0) -> Iterator[dict[str, str]]:
    """Starts a server and a line in a process of its own, on the last of the cores; yields the environment."""
    processes = multiprocessing.get_context('spawn')
    here, there = processes.Pipe()
    process = processes.Process(target=_serve, args=(scheme, latency, there))
    process.start()
    try:
        yield here.recv()
    finally:
        here.send('over')
        process.join()


def _serve(scheme: str, latency: float, pipe) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    logging.getLogger('werkzeug').setLevel(logging.ERROR)
    with server(scheme) as (line, environment):
        line.latency = latency
        pipe.send(environment)
        pipe.recv()
