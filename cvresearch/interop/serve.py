"""Serves a net over HTTP: a page on which a photograph is dropped, and an address for programs.

    cvresearch serve --weights NAME [--host 127.0.0.1] [--port 8000]

    curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict

NAME is run:DIR, file:PATH#torchvision/resnet50, hub:timm/resnet50.a1_in1k or a path. Only this machine can reach it
unless --host says otherwise; there is no password. It ends with Ctrl-C or SIGTERM, after the requests that it has.
"""

import importlib.util

from cvresearch.base import cli
from cvresearch.base.errors import RunError, UserError
from cvresearch.engine import classifiers
from cvresearch.interop import ensembled

LOOPBACK, PORT = '127.0.0.1', 8000
SECONDS_TO_END = 10.0


def main(argv: list[str]) -> int:
    """Serves until it is told to end."""
    options = cli.parse(
        argv,
        __doc__,
        required=('weights',),
        repeated=('weights',),
        weights='the net: run:DIR, file:PATH#LIBRARY/NET, hub:OWNER/NET, or a path; several are an ensemble',
        model='name of a variant; of a file that does not say whose weights it holds',
        host=f'address that it listens on ({LOOPBACK}: this machine alone; 0.0.0.0: everybody)',
        port=f'port that it listens on ({PORT})',
    )
    if importlib.util.find_spec('aiohttp') is None:
        raise UserError("serving needs the package aiohttp; pip install 'cvresearch[serve]'")
    host, port = options.host or LOOPBACK, cli.integer('port', options.port or str(PORT))
    if port > 65535:
        raise UserError(f'--port is {port}; expected at most 65535')
    net = ensembled.of([classifiers.load(name, options.model or '') for name in options.weights])
    from aiohttp import web

    from cvresearch.interop.server import Server

    try:
        web.run_app(
            Server(net).application(),
            host=host,
            port=port,
            shutdown_timeout=SECONDS_TO_END,
            access_log=None,
            print=lambda *_: print(f'{net.provenance.variant} on http://{host}:{port}', flush=True),
        )
    except OSError as error:
        raise RunError(f'cannot listen on {host}:{port}: {error.strerror or error}') from error
    return 0
