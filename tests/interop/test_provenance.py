"""What files tell of where weights come from."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy

from cvresearch.base.errors import UserError
from cvresearch.interop.provenance import provenance

ARRAYS = {'a': np.ones(2, np.float32)}


def test_the_digest_is_of_the_bytes(tmp_path):
    (tmp_path / 'a.pth').write_bytes(b'abc')
    # NIST, FIPS 180-2, appendix B.1.
    digest = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    assert provenance(tmp_path / 'a.pth') == {'file': 'a.pth', 'bytes': 3, 'sha256': digest}


def test_the_licence_of_the_file_counts_before_what_lies_beside_it(tmp_path):
    path = tmp_path / 'model.safetensors'
    safetensors.numpy.save_file(ARRAYS, path)
    (tmp_path / 'README.md').write_text('---\nlicense: other\nlicense_name: of-the-card\n---\n# A net\n')
    assert provenance(path)['license'] == 'of-the-card'
    (tmp_path / 'config.json').write_text(json.dumps({'pretrained_cfg': {'license': 'apache-2.0'}}))
    assert provenance(path)['license'] == 'apache-2.0'
    safetensors.numpy.save_file(ARRAYS, path, {'license': 'mit'})
    assert provenance(path)['license'] == 'mit'


def test_the_digest_of_several_files_is_of_their_digests(tmp_path):
    names = [f'model-0000{n}-of-00002.safetensors' for n in (1, 2)]
    for number, name in enumerate(names):
        safetensors.numpy.save_file({f'a{number}': ARRAYS['a']}, tmp_path / name)
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': {f'a{number}': name for number, name in enumerate(names)}}))
    digests = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names]
    assert provenance(index)['sha256'] == hashlib.sha256('\n'.join(digests).encode()).hexdigest()
    (tmp_path / names[1]).unlink()
    with pytest.raises(UserError, match=f'{names[1]} is not there'):
        provenance(index)


@pytest.mark.parametrize('text', ['', '---\n', '---\nlicense: [\n---\n', '---\nlicense: 3\n---\n', 'a --- license: b'])
def test_a_card_without_a_licence_tells_none(tmp_path, text):
    (tmp_path / 'a.npz').write_bytes(b'')
    (tmp_path / 'README.md').write_text(text)
    (tmp_path / 'config.json').write_text('[]')
    assert 'license' not in provenance(tmp_path / 'a.npz')
