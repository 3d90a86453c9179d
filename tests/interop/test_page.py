"""The server's page in a browser: a person chooses a photograph and sees the five most likely classes."""

import asyncio
import base64
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from cvresearch.data.preprocessing import Preprocessing
from cvresearch.interop.classifier import Classifier, Provenance
from cvresearch.interop.server import Server
from tests.interop.nets import small_net

DRIVER, BROWSER = shutil.which('chromedriver'), shutil.which('chromium')
pytestmark = pytest.mark.skipif(not (DRIVER and BROWSER), reason='needs chromium and chromium-driver')
ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'  # the name that the WebDriver standard gives to a reference


def free_port():
    with socket.socket() as place:
        place.bind(('127.0.0.1', 0))
        return place.getsockname()[1]


@pytest.fixture
def address():
    """The address of a server of a small net, in a thread."""
    module, variables, _ = small_net('toy_inception', num_classes=10)
    names = tuple(f'{name} & <b>' for name in 'abcdefghij')
    net = Classifier(module, variables, Preprocessing(crop=32, resize=32), names, Provenance('file', 'x', 'x', '0'))
    port, loop, ready = free_port(), asyncio.new_event_loop(), threading.Event()
    runner = web.AppRunner(Server(net).application(), shutdown_timeout=0)

    async def start():
        await runner.setup()
        await web.TCPSite(runner, '127.0.0.1', port).start()
        ready.set()

    def serve():
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(60)
    yield f'http://127.0.0.1:{port}/'
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def browser():
    """A function that sends a command of the WebDriver protocol to a headless browser."""
    port = free_port()
    process = subprocess.Popen([DRIVER, f'--port={port}'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f'http://127.0.0.1:{port}/session'

    def send(path, method='POST', **body):
        data = json.dumps(body).encode() if method == 'POST' else None
        request = urllib.request.Request(f'{base}{path}', data, {'Content-Type': 'application/json'}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)['value']

    for _ in range(200):
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    flags = ['--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--window-size=800,900']
    options = {'goog:chromeOptions': {'binary': BROWSER, 'args': flags}}
    base += '/' + send('', capabilities={'alwaysMatch': options})['sessionId']
    yield send
    send('', 'DELETE')
    process.terminate()
    process.wait()


def text_of(browser, selector):
    found = browser('/elements', using='css selector', value=selector)
    return [browser(f'/element/{element[ELEMENT]}/text', 'GET') for element in found]


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def test_a_person_sees_five_classes_and_then_an_error(browser, address, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'photograph.png')
    (tmp_path / 'broken.png').write_bytes(b'no image')
    browser('/url', url=address)
    chooser = browser('/element', using='css selector', value='#file')[ELEMENT]
    browser(f'/element/{chooser}/value', text=str(tmp_path / 'photograph.png'))
    rows = until(lambda: text_of(browser, '#answer tr'))
    assert len(rows) == 5 and all('& <b>' in row and row.endswith('%') for row in rows)
    # What speaks for the most likely class stands beside the photograph, and then for the one that is chosen.
    caption = until(lambda: text_of(browser, '#explained figcaption'))
    assert until(lambda: '(Grad-CAM)' in text_of(browser, '#caption')[0]), caption
    second = browser('/elements', using='css selector', value='#answer button')[1][ELEMENT]
    name = browser(f'/element/{second}/text', 'GET')
    browser(f'/element/{second}/click')
    assert until(lambda: name in text_of(browser, '#caption')[0])
    picture = base64.b64decode(browser('/screenshot', 'GET'))
    (tmp_path / 'page.png').write_bytes(picture)
    assert np.asarray(Image.open(tmp_path / 'page.png')).std() > 10
    browser(f'/element/{chooser}/value', text=str(tmp_path / 'broken.png'))
    (error,) = until(lambda: [text for text in text_of(browser, '#error') if text])
    assert error.startswith('the image cannot be decoded') and not text_of(browser, '#answer tr')
