"""A classifier over HTTP: one page for people, one address for programs, and bounds for everybody.

    GET  /          a page on which a photograph is dropped
    POST /predict   an image file as the body, or as the field `image` of a form; the most likely classes as JSON
    POST /explain   likewise, with ?class=N or for the most likely: what speaks for it by Grad-CAM, as a PNG in JSON
    GET  /health    200 while the net answers, with its name and digest
    GET  /metrics   counts and times in Prometheus' text format

Images of requests that come together are one batch. Whatever is wrong with a request is a 4xx with one line.
"""

import asyncio
import base64
import collections
import concurrent.futures
import contextlib
import importlib.resources
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import jax
import numpy as np
from aiohttp import hdrs, web
from scipy.special import expit

from cvresearch.base.errors import UserError
from cvresearch.data.decode import DamagedError
from cvresearch.interop import explained
from cvresearch.interop.classifier import Classifier
from cvresearch.objectives import scores

TOP = 5
MOST_BYTES = 16 * 2**20  # of an upload
MOST_WAITING = 256  # images that wait for the net; more are told to come again
MOST_EXPLAINED = 8  # that wait for an explanation, which costs a backward pass and a picture
SECONDS_TO_SEND = 20.0  # that a client may take for its upload
BATCHES = (1, 4, 16)  # sizes that are compiled; a batch is filled up to the next
SECONDS_TO_GATHER = 0.003  # that the first image of a batch waits for others
PATHS = ('/', '/predict', '/explain', '/health', '/metrics')
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

    async def between(self, function: Callable, *arguments):
        """Returns what a function gives that needs the device, when the batch that it has is done."""
        return await asyncio.get_running_loop().run_in_executor(self._device, function, *arguments)

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
        self._of_logits = expit if net.multi_label else scores.softmax
        self._decoders = concurrent.futures.ThreadPoolExecutor(_DECODERS)
        self._batcher: Batcher
        self._explained = 0  # that wait
        self._answers: collections.Counter = collections.Counter()
        self._seconds = 0.0

    def application(self) -> web.Application:
        """Returns what aiohttp serves."""
        application = web.Application(client_max_size=self._most_bytes, middlewares=[self._counted])
        application.router.add_get('/', _page)
        application.router.add_get('/health', self._health)
        application.router.add_get('/metrics', self._metrics)
        application.router.add_post('/predict', self._predict)
        application.router.add_post('/explain', self._explain)
        application.cleanup_ctx.append(self._running)
        return application

    async def _running(self, _: web.Application) -> AsyncIterator[None]:
        """Compiles before the first request, and ends after the last."""
        for size in BATCHES:
            await asyncio.to_thread(self._logits_of, np.zeros((size, *self._net.input_shape), np.uint8))
        blank = np.zeros(self._net.input_shape, np.uint8)
        with contextlib.suppress(UserError):  # a net without maps; who asks is told
            await asyncio.to_thread(explained.picture, self._net, blank, 0)
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
        started, path = time.monotonic(), request.path if request.path in PATHS else 'other'
        try:
            response = await handler(request)
        except web.HTTPException as error:
            # aiohttp's own come without JSON.
            response = web.json_response({'error': error.text or error.reason}, status=error.status)
            if hdrs.ALLOW in error.headers:
                response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
            if request.content.exception() is not None:
                # Where this body ends and the next request begins is not known; nobody reads what is left of it.
                response.force_close()
                request.content.feed_eof()
        except Exception:
            self._answers[path, 500] += 1
            raise
        self._answers[path, response.status] += 1
        if (path, response.status) == ('/predict', 200):
            self._seconds += time.monotonic() - started
        return response

    async def _prepared(self, request: web.Request) -> np.ndarray:
        """Returns the pixels of a request's image as the net sees them.

        A body that says that it is too large is not read.

        Raises:
          web.HTTPException: what is wrong with it.
        """
        if (size := request.content_length or 0) > self._most_bytes:
            most = f'the image has {size:,} bytes; expected at most {self._most_bytes:,}'
            raise web.HTTPRequestEntityTooLarge(self._most_bytes, size, text=most)
        try:
            data = await asyncio.wait_for(_image_of(request), self._seconds_to_send)
        except TimeoutError as error:
            raise web.HTTPRequestTimeout(text=f'the image did not come within {self._seconds_to_send:g} s') from error
        except ConnectionResetError as error:
            raise web.HTTPBadRequest(text='the client left before its image had come') from error
        try:
            return await asyncio.get_running_loop().run_in_executor(self._decoders, self._net.prepare, data)
        except (DamagedError, UserError, OSError, ValueError) as error:
            why = ' '.join(str(error).split())
            raise web.HTTPUnprocessableEntity(text=f'the image cannot be decoded ({why})') from error
        except MemoryError as error:
            raise web.HTTPRequestEntityTooLarge(self._most_bytes, len(data), text='the image is too large') from error

    async def _probabilities(self, image: np.ndarray) -> np.ndarray:
        try:
            return self._of_logits(await self._batcher.logits(image))
        except asyncio.QueueFull as error:
            raise web.HTTPServiceUnavailable(text='too many images wait; come again') from error

    async def _predict(self, request: web.Request) -> web.Response:
        probabilities = await self._probabilities(await self._prepared(request))
        best, names = np.argsort(-probabilities, kind='stable')[:TOP], self._net.class_names
        top = [{'class': int(c), 'name': names[c], 'probability': float(probabilities[c])} for c in best]
        return web.json_response({'top': top})

    async def _explain(self, request: web.Request) -> web.Response:
        text, classes = request.query.get('class'), self._net.num_classes
        if text is not None and not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) < classes):
            raise web.HTTPBadRequest(text=f'class is {text[:20]!r}; expected a number from 0 to {classes - 1}')
        image = await self._prepared(request)
        number = int((await self._probabilities(image)).argmax()) if text is None else int(text)
        if self._explained >= MOST_EXPLAINED:
            raise web.HTTPServiceUnavailable(text='too many explanations wait; come again')
        self._explained += 1
        try:
            picture, evidence = await self._batcher.between(explained.picture, self._net, image, number)
        except UserError as error:
            raise web.HTTPUnprocessableEntity(text=f'this net cannot be explained: {error}') from error
        finally:
            self._explained -= 1
        return web.json_response(
            {
                'class': number,
                'name': self._net.class_names[number],
                'method': 'gradcam',
                'evidence': evidence,
                'picture': f'data:image/png;base64,{base64.b64encode(picture).decode()}',
            }
        )

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
        field = (await _read(request.post())).get('image')
        if not isinstance(field, web.FileField):
            raise web.HTTPBadRequest(text='the form has no file in its field `image`')
        with field.file as file:
            data = file.read()
    elif kind.startswith('image/') or kind == 'application/octet-stream':
        data = await _read(request.read())
    else:
        raise web.HTTPUnsupportedMediaType(text=f'the type is {kind}; expected image/jpeg, image/png or another image')
    if not data:
        raise web.HTTPBadRequest(text='the request has no image; send a file as the body')
    return data


async def _read(body: Awaitable):
    """Returns what is read of a request.

    Raises:
      web.HTTPBadRequest: it is not what its headers say: not compressed, no form, in no known encoding.
    """
    try:
        return await body
    except (web.HTTPException, TimeoutError, ConnectionResetError):
        raise
    except Exception as error:  # aiohttp's and its decoders' are of many kinds
        raise web.HTTPBadRequest(text=f'the body cannot be read ({" ".join(str(error).split())})') from error
