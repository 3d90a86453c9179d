"""The server under load: throughput and latency at 1, 8 and 64 clients, bad requests, slow ones, its memory.

    python -m tests.peers.load [--record docs/records/serve_load.json]
    python -m tests.peers.load --table            # the table of docs/export.md

Starts `cvresearch serve` with SqueezeNet 1.1 at 96 x 96 pixels and asks it from this process, over loopback, on the
same machine: 10,000 good requests, 200 bad ones, and clients that hold connections open. Nothing may be lost.
"""

import argparse
import asyncio
import datetime
import io
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
RECORD = ROOT / 'docs' / 'records' / 'serve_load.json'
REQUESTS = {1: 500, 8: 2000, 64: 7500}  # by the number of clients
SLOW = 20
NET, SIDE, CLASSES = 'torchvision/squeezenet1_1', 96, 10


def photograph() -> bytes:
    """Returns a JPEG of 320 x 240 pixels."""
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC).save(file, 'JPEG', quality=90)
    return file.getvalue()


def weights(folder: Path) -> str:
    """Writes seeded weights; returns the net's name for the command."""
    from cvresearch.data.preprocessing import Preprocessing
    from cvresearch.interop import exports
    from cvresearch.interop.classifier import Classifier, Provenance, default_names
    from tests.interop.nets import small_net

    variant = NET.partition('/')[2]
    module, variables, _ = small_net(variant, CLASSES)
    prepared = Preprocessing(crop=SIDE, resize=SIDE)
    net = Classifier(module, variables, prepared, default_names(CLASSES), Provenance('file', NET, variant, '', NET))
    exports.export(net, 'torchvision', folder / 'net.safetensors')
    return f'file:{folder}/net.safetensors#{NET}'


class Process:
    """The server as a process of its own."""

    def __init__(self, name: str):
        with socket.socket() as place:
            place.bind(('127.0.0.1', 0))
            self.port = place.getsockname()[1]
        words = ['-m', 'cvresearch', 'serve', '--weights', name, '--port', str(self.port)]
        self._process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if not self._process.stdout.readline():
            raise RuntimeError('the server does not start')
        self.address = f'http://127.0.0.1:{self.port}'

    @property
    def megabytes(self) -> float:
        """Its resident memory."""
        lines = Path(f'/proc/{self._process.pid}/status').read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith('VmRSS'))) / 1024

    def end(self) -> int:
        """Asks it to end; returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)


async def ask(session: aiohttp.ClientSession, address: str, **request) -> tuple[int, dict, float]:
    """Returns (status, answer, seconds) of a request; status 0 if there is none."""
    start = time.perf_counter()
    try:
        async with session.post(f'{address}/predict', **request) as response:
            return response.status, await response.json(), time.perf_counter() - start
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return 0, {}, time.perf_counter() - start


async def load(address: str, clients: int, requests: int) -> dict:
    """Returns the speed at a number of clients, each of which asks again when it has its answer."""
    body = dict(data=photograph(), headers={'Content-Type': 'image/jpeg'})
    left, seconds, statuses = iter(range(requests)), [], Counter()

    async def client(session):
        for _ in left:
            status, answer, took = await ask(session, address, **body)
            statuses[status if len(answer.get('top', ())) == 5 else 0] += 1
            seconds.append(took)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=clients)) as session:
        start = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        whole = time.perf_counter() - start
    return dict(
        clients=clients, requests=requests, answered=statuses[200], lost=requests - statuses[200],
        per_second=round(requests / whole, 1), median_ms=round(1e3 * statistics.median(seconds), 1),
        p95_ms=round(1e3 * float(np.quantile(seconds, 0.95)), 1), slowest_ms=round(1e3 * max(seconds), 1),
    )  # fmt: skip


def bad_requests() -> dict[str, dict]:
    """Returns what strangers send, by what is wrong with it."""
    good, jpeg = photograph(), {'Content-Type': 'image/jpeg'}
    header = b'\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xff\xff\x00\x00\xff\xff\x08\x02\x00\x00\x00'
    return {
        'no body': dict(data=b'', headers=jpeg),
        'text': dict(data=b'hello', headers={'Content-Type': 'text/plain'}),
        'no image': dict(data=b'hello', headers=jpeg),
        'cut off': dict(data=good[: len(good) // 2], headers=jpeg),
        'noise': dict(data=bytes(np.random.default_rng(1).integers(0, 256, 5000, np.uint8)), headers=jpeg),
        'a PNG that says 65535 x 65535': dict(data=header + bytes(100), headers={'Content-Type': 'image/png'}),
        'larger than 16 MiB': dict(data=bytes(17 * 2**20), headers=jpeg),
        'a form without the field': dict(data=aiohttp.FormData({'file': 'x'})),
    }


async def bad(address: str) -> dict:
    """Returns the statuses of 200 bad requests, and how many said in one line what is wrong."""
    statuses, told = Counter(), 0
    async with aiohttp.ClientSession() as session:
        for _ in range(25):
            for kind, request in bad_requests().items():
                status, answer, _ = await ask(session, address, **request)
                statuses[f'{kind}: {status}'] += 1
                told += 400 <= status < 500 and bool(answer.get('error')) and '\n' not in answer['error']
    return dict(requests=sum(statuses.values()), clear_4xx=told, statuses=dict(sorted(statuses.items())))


async def hostile(address: str, port: int) -> dict:
    """Returns what became of good requests while others were slow, endless or no HTTP at all."""
    head = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n'
    writers, first = [], {}
    for text in [head % 1000] * SLOW + [head % 2**40]:
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        writer.write(text + b'\xff\xd8')
        writers.append((reader, writer))
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    writer.write(b'\x16\x03\x01 no HTTP at all\r\n\r\n')
    first['no HTTP'] = (await reader.read(100)).split(b'\r\n')[0].decode(errors='replace')
    writers.append((reader, writer))
    meanwhile = await load(address, 8, 200)
    slow = Counter()
    for reader, _ in writers[:SLOW]:
        slow[(await asyncio.wait_for(reader.read(200), 60)).split(b'\r\n')[0].decode()] += 1
    reader, _ = writers[SLOW]
    first['content-length of 1 TiB'] = (await asyncio.wait_for(reader.read(200), 60)).split(b'\r\n')[0].decode()
    for _, writer in writers:
        writer.close()
    return dict(good_meanwhile=meanwhile, slow=dict(slow), **first)


def measure() -> dict:
    """Returns the record."""
    with tempfile.TemporaryDirectory() as folder:
        server = Process(weights(Path(folder)))
    asyncio.run(load(server.address, 8, 300))  # threads and buffers come with the first requests
    before = server.megabytes
    rows = [asyncio.run(load(server.address, clients, requests)) for clients, requests in REQUESTS.items()]
    after = server.megabytes
    wrong = asyncio.run(bad(server.address))
    strange = asyncio.run(hostile(server.address, server.port))
    return dict(
        command='python -m tests.peers.load --record docs/records/serve_load.json',
        net=f'{NET}, {SIDE} x {SIDE}',
        cores=os.cpu_count(),
        machine=platform.machine(),
        date=str(datetime.date.today()),
        other_load=round(os.getloadavg()[1], 1),
        rows=rows,
        bad=wrong,
        hostile=strange,
        megabytes=dict(before=round(before), after_10000=round(after), at_the_end=round(server.megabytes)),
        exit_code=server.end(),
    )


def table() -> str:
    """Returns the record as a table."""
    lines = ['| clients | requests | lost | images/s | median, ms | 95 %, ms |', f'|{" ---: |" * 6}']
    for row in json.loads(RECORD.read_text())['rows']:
        cells = [row[key] for key in ('clients', 'requests', 'lost', 'per_second', 'median_ms', 'p95_ms')]
        lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measures, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--record', help='file that the figures go to')
    parser.add_argument('--table', action='store_true', help='print the table of docs/export.md')
    options = parser.parse_args(argv)
    if options.table:
        print(table())
        return 0
    text = json.dumps(measure(), indent=1) + '\n'
    print(text)
    if options.record:
        Path(options.record).write_text(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
