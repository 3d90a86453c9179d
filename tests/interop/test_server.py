"""The server: answers, batches, bounds, and every bad request a 4xx with a line."""

import asyncio
import base64
import io

import aiohttp
import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from cvresearch.data.preprocessing import Preprocessing
from cvresearch.inspect import class_activation
from cvresearch.interop.classifier import Classifier, Provenance
from cvresearch.interop.server import BATCHES, Batcher, Server
from cvresearch.objectives import scores
from tests.interop.nets import small_net


@pytest.fixture(scope='module')
def net():
    """A small net of colour images."""
    module, variables, _ = small_net('softmax_regression_cifar10')
    provenance = Provenance('file', 'file:x', 'softmax_regression_cifar10', '00ff')
    return Classifier(module, variables, Preprocessing(crop=32, resize=32), tuple('abcdefghij'), provenance)


def photograph(seed=0, form='PNG'):
    """Returns an image and the bytes of its file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return pixels, file.getvalue()


def served(net, function, **options):
    """Returns what a coroutine gets from a server of the net."""

    async def run():
        async with TestClient(TestServer(Server(net, **options).application())) as client:
            return await function(client)

    return asyncio.run(run())


def test_many_clients_get_each_their_own_answer_in_few_batches(net):
    photographs = [photograph(seed) for seed in range(24)]

    async def ask(client):
        async def one(data):
            response = await client.post('/predict', data=data, headers={'Content-Type': 'image/png'})
            assert response.status == 200
            return (await response.json())['top']

        answers = await asyncio.gather(*(one(data) for _, data in photographs))
        return answers, await (await client.get('/metrics')).text()

    answers, metrics = served(net, ask)
    for (pixels, _), top in zip(photographs, answers, strict=True):
        probabilities = scores.softmax(np.asarray(net.logits(net.prepare(pixels)), np.float64))
        best = np.argsort(-probabilities)[:5]
        assert [row['class'] for row in top] == best.tolist()
        assert [row['name'] for row in top] == [net.class_names[c] for c in best]
        np.testing.assert_allclose([row['probability'] for row in top], probabilities[best], rtol=1e-4)
    assert 'cvresearch_requests_total{path="/predict",status="200"} 24' in metrics


def test_images_that_wait_are_one_batch():
    seen = []

    async def run():
        batcher = Batcher(lambda images: seen.append(len(images)) or images.sum((1, 2, 3)))
        waiting = [asyncio.ensure_future(batcher.logits(np.full((1, 1, 1), n))) for n in range(20)]
        task = asyncio.create_task(batcher.run())
        found = await asyncio.gather(*waiting)
        task.cancel()
        batcher.close()
        return found

    assert asyncio.run(run()) == list(range(20))
    assert seen == [16, 4] and set(seen) <= set(BATCHES)


def test_a_batch_that_fails_is_not_the_end():
    def sometimes(images):
        if images[0, 0, 0, 0] == 0:
            raise RuntimeError('no')
        return images[:, 0, 0, 0]

    async def run():
        batcher = Batcher(sometimes)
        task = asyncio.create_task(batcher.run())
        with pytest.raises(RuntimeError, match='no'):
            await batcher.logits(np.zeros((1, 1, 1)))
        found = await batcher.logits(np.ones((1, 1, 1)))
        task.cancel()
        batcher.close()
        return found

    assert asyncio.run(run()) == 1


def form(name, data):
    body = aiohttp.FormData()
    body.add_field(name, data, filename='a.png', content_type='image/png')
    return body


def part(header, more='; filename="a.png"'):
    return f'--x\r\nContent-Disposition: form-data; name="image"{more}\r\n{header}\r\n\r\nx\r\n--x--\r\n'.encode()


_, PNG = photograph()
FORM = {'Content-Type': 'multipart/form-data; boundary=x'}
BAD = {
    'no body': (400, dict(data=b'', headers={'Content-Type': 'image/png'})),
    'text': (415, dict(data=b'hello', headers={'Content-Type': 'text/plain'})),
    'no image': (422, dict(data=b'hello', headers={'Content-Type': 'image/png'})),
    'cut off': (422, dict(data=PNG[: len(PNG) // 2], headers={'Content-Type': 'image/png'})),
    'too large': (413, dict(data=b'0' * 20_000, headers={'Content-Type': 'image/png'})),
    'another field': (400, dict(data=form('file', b'x'))),
    'a form without an end': (400, dict(data=b'--x', headers={'Content-Type': 'multipart/form-data; boundary=x'})),
    'not compressed': (400, dict(data=PNG, headers={'Content-Type': 'image/png', 'Content-Encoding': 'gzip'})),
    'a field in an unknown encoding': (400, dict(data=part('Content-Transfer-Encoding: rot13'), headers=FORM)),
    'a text in an unknown alphabet': (400, dict(data=part('Content-Type: text/plain; charset=x', ''), headers=FORM)),
    'a form without a boundary': (400, dict(data=b'x', headers={'Content-Type': 'multipart/form-data'})),
}


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_request_is_told_why(kind, net):
    status, request = BAD[kind]

    async def ask(client):
        response = await client.post('/predict', **request)
        good = await client.post('/predict', data=PNG, headers={'Content-Type': 'image/png'})
        return response.status, await response.json(), good.status

    got, body, after = served(net, ask, most_bytes=10_000)
    assert got == status and body['error'] and '\n' not in body['error']
    assert after == 200


def test_other_addresses_and_methods(net):
    async def ask(client):
        return [
            (await client.get('/predict')).status,
            (await client.get('/nothing')).status,
            await (await client.get('/health')).json(),
            await (await client.get('/')).text(),
            (await client.post('/predict', data=form('image', PNG))).status,
        ]

    wrong_method, missing, health, page, by_form = served(net, ask)
    assert (wrong_method, missing, by_form) == (405, 404, 200)
    assert health == {'status': 'ok', 'net': 'softmax_regression_cifar10', 'digest': '00ff'}
    assert 'Drop a photograph' in page


@pytest.fixture(scope='module')
def convolutional():
    """A net that has maps, of images of 32 x 32."""
    module, variables, _ = small_net('toy_inception', num_classes=10)
    provenance = Provenance('file', 'file:x', 'toy_inception', '00ff')
    return Classifier(module, variables, Preprocessing(crop=32, resize=32), tuple('abcdefghij'), provenance)


def test_what_speaks_for_a_class_is_grad_cams_picture(convolutional):
    pixels, data = photograph()

    async def ask(client):
        send = dict(data=data, headers={'Content-Type': 'image/png'})
        first, chosen = [await (await client.post(f'/explain{query}', **send)).json() for query in ('', '?class=3')]
        return first, chosen, (await (await client.post('/predict', **send)).json())['top'][0]

    first, chosen, top = served(convolutional, ask)
    assert (first['class'], first['name']) == (top['class'], top['name']) and chosen['name'] == 'd'
    seen = convolutional.prepare(pixels)
    found = class_activation.grad_cam(
        convolutional.module, convolutional.variables, convolutional.normalize(seen[None]), [top['class']]
    )
    assert first['evidence'] == bool(found.has_evidence[0])
    head, _, body = first['picture'].partition(',')
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))), np.float64)
    assert head == 'data:image/png;base64' and picture.shape == (448, 448, 3)
    # Brighter where the map is: without the grey photograph beneath, the colours rise with it.
    times = 448 // found.map.shape[1]
    grey = seen.mean(-1).repeat(14, 0).repeat(14, 1)
    colour = ((picture - 0.4 * grey[..., None]) / 0.6).sum(-1)
    cells = colour[times // 2 :: times, times // 2 :: times]
    assert np.corrcoef(cells.ravel(), found.map[0].ravel())[0, 1] > 0.95


def test_a_wrong_class_and_a_net_without_maps_are_told(net, convolutional):
    async def ask(client, query):
        response = await client.post(f'/explain{query}', data=PNG, headers={'Content-Type': 'image/png'})
        return response.status, (await response.json())['error']

    for text in ('10', '-1', 'x', '%C2%B2', '9' * 5000):
        status, error = served(convolutional, lambda client, text=text: ask(client, f'?class={text}'))
        assert status == 400 and 'expected a number from 0 to 9' in error
    status, error = served(net, lambda client: ask(client, ''))
    assert status == 422 and 'cannot be explained' in error


def test_a_client_that_sends_too_slowly_is_let_go(net):
    async def slowly():
        yield PNG[:100]
        await asyncio.sleep(30)

    async def ask(client):
        response = await client.post('/predict', data=slowly(), headers={'Content-Type': 'image/png'})
        return response.status, (await response.json())['error']

    status, error = served(net, ask, seconds_to_send=0.2)
    assert status == 408 and 'within 0.2 s' in error
