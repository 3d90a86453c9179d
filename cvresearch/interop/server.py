"""A classifier over HTTP: one page for people, one address for programs, and bounds for everybody.

    GET  /          a page on which a photograph is dropped
    POST /predict   an image file as the body, or as the field `image` of a form; the most likely classes as JSON
    GET  /health    200 while the net answers, with its name and digest
    GET  /metrics   counts and times in Prometheus' text format

Images of requests that come together are one batch. Whatever is wrong with a request is a 4xx with one line.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import importlib.resources
import time
from collections.abc import AsyncIterator, Callable

import jax
import numpy as np
from aiohttp import hdrs, web

from cvresearch.base.errors import UserError
from cvresearch.data.decode import DamagedError
from cvresearch.interop.classifier import Classifier
from cvresearch.objectives import scores

TOP = 5
MOST_BYTES = 16 * 2**20  # of an upload
MOST_WAITING = 256  # images that wait for the net; more are told to come again
SECONDS_TO_SEND = 20.0  # that a client may take for its upload
BATCHES = (1, 4, 16)  # sizes that are compiled; a batch is filled up to the next
SECONDS_TO_GATHER = 0.003  # that the first image of a batch waits for others
_DECODERS = 2


class Batcher:
    """Gives a net the images of several requests at once.

    Attributes:
      sizes: how many batches there have been of each number of images.
    """

    def __init__(self, logits_of: Callable[[np.ndarray], np.ndarray], most_waiting: int = MOST_WAITING):
        self.sizes: collections.Counter = collections.Counter()
        self._logits_of = logits_of
        self._queue: asyncio.Queue = asyncio.Queue(most_waiting)
        # One thread: a second batch would only slow the first.
        self._device = concurrent.futures.ThreadPoolExecutor(1)

    @property
    def waiting(self) -> int:
        """How many images wait."""
        return self._queue.qsize()

    async def logits(self, image: np.ndarray) -> np.ndarray:
        """Returns the logits of an image.

        Raises:
          asyncio.QueueFull: too many wait.
        """
        answer = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((image, answer))
        return await answer

    async def run(self) -> None:
        """Answers until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            some = [await self._queue.get()]
            if self._queue.empty():
                await asyncio.sleep(SECONDS_TO_GATHER)
            while not self._queue.empty() and len(some) < BATCHES[-1]:
                some.append(self._queue.get_nowait())
            # Who asked may have gone.
            some = [(image, answer) for image, answer in some if not answer.done()]
            if not some:
                continue
            self.sizes[len(some)] += 1
            size = next(size for size in BATCHES if size >= len(some))
            images = [image for image, _ in some]
            try:
                batch = np.stack(images + images[:1] * (size - len(images)))
                results = await loop.run_in_executor(self._device, self._logits_of, batch)
            except Exception as error:  # one batch fails, the server goes on
                results = [error] * len(some)
            for (_, answer), result in zip(some, results, strict=False):
                if answer.done():
                    continue
                if isinstance(result, Exception):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

    def close(self) -> None:
        """Ends the thread."""
        self._device.shutdown(wait=True)


class Server:
    """The handlers of one classifier."""

    def __init__(self, net: Classifier, most_bytes: int = MOST_BYTES, seconds_to_send: float = SECONDS_TO_SEND):
        self._net = net
        self._most_bytes = most_bytes
        self._seconds_to_send = seconds_to_send
        logits_of = jax.jit(net.logits)
        self._logits_of = lambda images: np.asarray(logits_of(images), np.float64)
        self._decoders = concurrent.futures.ThreadPoolExecutor(_DECODERS)
        self._batcher: Batcher
        self._answers: collections.Counter = collections.Counter()
        self._seconds = 0.0

    def application(self) -> web.Application:
        """Returns what aiohttp serves."""
        application = web.Application(client_max_size=self._most_bytes, middlewares=[self._counted])
        application.router.add_get('/', _page)
        application.router.add_get('/health', self._health)
        application.router.add_get('/metrics', self._metrics)
        application.router.add_post('/predict', self._predict)
        application.cleanup_ctx.append(self._running)
        return application

    async def _running(self, _: web.Application) -> AsyncIterator[None]:
        """Compiles before the first request, and ends after the last."""
        for size in BATCHES:
            await asyncio.to_thread(self._logits_of, np.zeros((size, *self._net.input_shape), np.uint8))
        self._batcher = Batcher(self._logits_of)
        task = asyncio.create_task(self._batcher.run())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self._batcher.close()
        self._decoders.shutdown(wait=True)

    @web.middleware
    async def _counted(self, request: web.Request, handler: Callable) -> web.StreamResponse:
        started = time.monotonic()
        try:
            response = await handler(request)
        except web.HTTPException as error:
            # aiohttp's own come without JSON.
            response = web.json_response({'error': error.text or error.reason}, status=error.status)
            if hdrs.ALLOW in error.headers:
                response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        path = request.path if request.path in ('/', '/predict', '/health', '/metrics') else 'other'
        self._answers[path, response.status] += 1
        if (path, response.status) == ('/predict', 200):
            self._seconds += time.monotonic() - started
        return response

    async def _predict(self, request: web.Request) -> web.Response:
        try:
            data = await asyncio.wait_for(_image_of(request), self._seconds_to_send)
        except TimeoutError as error:
            raise web.HTTPRequestTimeout(text=f'the image did not come within {self._seconds_to_send:g} s') from error
        except ConnectionResetError as error:
            raise web.HTTPBadRequest(text='the client left before its image had come') from error
        loop = asyncio.get_running_loop()
        try:
            image = await loop.run_in_executor(self._decoders, self._net.prepare, data)
        except (DamagedError, UserError, OSError, ValueError) as error:
            why = ' '.join(str(error).split())
            raise web.HTTPUnprocessableEntity(text=f'the image cannot be decoded ({why})') from error
        except MemoryError as error:
            raise web.HTTPRequestEntityTooLarge(self._most_bytes, len(data), text='the image is too large') from error
        try:
            logits = await self._batcher.logits(image)
        except asyncio.QueueFull as error:
            raise web.HTTPServiceUnavailable(text='too many images wait; come again') from error
        probabilities = scores.softmax(logits)
        best, names = np.argsort(-probabilities, kind='stable')[:TOP], self._net.class_names
        top = [{'class': int(c), 'name': names[c], 'probability': float(probabilities[c])} for c in best]
        return web.json_response({'top': top})

    async def _health(self, _: web.Request) -> web.Response:
        origin = self._net.provenance
        return web.json_response({'status': 'ok', 'net': origin.variant, 'digest': origin.digest})

    async def _metrics(self, _: web.Request) -> web.Response:
        lines = ['# TYPE cvresearch_requests_total counter']
        lines += [
            f'cvresearch_requests_total{{path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(self._answers.items())
        ]
        lines += ['# TYPE cvresearch_batches_total counter']
        sizes = sorted(self._batcher.sizes.items())
        lines += [f'cvresearch_batches_total{{images="{size}"}} {count}' for size, count in sizes]
        lines += ['# TYPE cvresearch_predict_seconds_total counter']
        lines += [f'cvresearch_predict_seconds_total {self._seconds:.6f}']
        lines += ['# TYPE cvresearch_waiting_images gauge', f'cvresearch_waiting_images {self._batcher.waiting}']
        return web.Response(text='\n'.join(lines) + '\n', content_type='text/plain')


async def _page(_: web.Request) -> web.Response:
    text = importlib.resources.files('cvresearch.interop').joinpath('page.html').read_text(encoding='utf-8')
    return web.Response(text=text, content_type='text/html')


async def _image_of(request: web.Request) -> bytes:
    """Returns the bytes of a request's image.

    Raises:
      web.HTTPException: there is none, it is too large, or of another type.
    """
    kind = request.content_type
    if kind == 'multipart/form-data':
        try:
            field = (await request.post()).get('image')
        except ValueError as error:
            raise web.HTTPBadRequest(text=f'the form cannot be read ({" ".join(str(error).split())})') from error
        if not isinstance(field, web.FileField):
            raise web.HTTPBadRequest(text='the form has no file in its field `image`')
        with field.file as file:
            data = file.read()
    elif kind.startswith('image/') or kind == 'application/octet-stream':
        data = await request.read()
    else:
        raise web.HTTPUnsupportedMediaType(text=f'the type is {kind}; expected image/jpeg, image/png or another image')
    if not data:
        raise web.HTTPBadRequest(text='the request has no image; send a file as the body')
    return data
