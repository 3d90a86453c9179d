"""Released weights, measured: a list of nets on ILSVRC's layout, columns of their own in a table, what stays out."""

import csv
import io
import json

import pytest

from cvresearch import evaluate
from cvresearch.base.errors import UserError
from cvresearch.interop import conversion
from cvresearch.models import registry
from cvresearch.report import evaluations, published, tables
from tests.data.photographs import ilsvrc
from tests.interop.nets import seeded_variables

NET = 'torchvision/squeezenet1_0'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Seeded weights, six images laid out as ILSVRC's, and a list of two nets, one of which is lost."""
    folder = tmp_path_factory.mktemp('released')
    ilsvrc(folder / 'ilsvrc')
    reference = registry.reference(NET)
    module = registry.build(reference.variant, **reference.arguments)
    conversion.save(folder / 'net.safetensors', seeded_variables(module, (224, 224, 3)), NET)
    names = ['# two nets', f'file:{folder}/net.safetensors#{NET}', '', f'file:{folder}/lost.safetensors#{NET}']
    (folder / 'nets.txt').write_text('\n'.join(names))
    return folder


@pytest.fixture(scope='module')
def flags(folder):
    out = folder / 'measured'
    flags = [f'--weights=@{folder}/nets.txt', '--data=imagenet', f'--root={folder}/ilsvrc', f'--out={out}']
    assert evaluate.main(flags) == 2  # of the lost one
    return flags


def kept(path, **changes):
    """Writes the record of an evaluation by hand, and returns its folder."""
    record = {
        'net': 'file:a.pth#torchvision/resnet50',
        'kind': 'file',
        'model': 'resnet50',
        'digest': '0123456789abcdef',
        'reference': 'torchvision/resnet50',
        'data': 'imagenet',
        'split': 'test',
        'protocol': 'centre',
        'resolution': 224,
        'top1': 76.0,
        'top5': 93.0,
        'n_seen': 50_000,
    } | changes
    path.mkdir()
    (path / evaluations.RECORD).write_text(json.dumps(record))
    return str(path)


def rows(capsys, *argv):
    capsys.readouterr()
    assert tables.main([*argv, '--format', 'csv']) == 0
    printed = capsys.readouterr()
    return list(csv.DictReader(io.StringIO(printed.out))), printed.err


def test_a_list_of_nets_is_measured_and_continued_by_the_same_command(folder, flags, capsys):
    (own,) = (folder / 'measured').iterdir()
    assert own.name == 'torchvision-squeezenet1_0-net.safetensors'
    record = json.loads((own / 'evaluation.json').read_text())
    assert (record['data'], record['n_seen'], record['protocol']) == ('imagenet', 6, 'as_given')
    (own / 'evaluation.json').write_text(json.dumps(record | {'kept': True}))
    capsys.readouterr()
    assert evaluate.main(flags) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)['kept'] and 'lost.safetensors' in printed.err


def test_measured_weights_stand_beside_the_paper_and_apart_from_ours(folder, flags, capsys):
    path = next((folder / 'measured').iterdir())
    record = json.loads((path / 'evaluation.json').read_text())
    row, *_ = rows(capsys, 'SqueezeNet-T3', '--runs', str(path))[0]
    assert row['net'] == 'Vanilla SqueezeNet'
    assert row['ours top-1'] == row['seeds'] == '' and row['top-1 accuracy (%), paper'] == '57.5'
    assert row['released weights, measured: top-1'] == f'{record["top1"]:.2f}'
    assert row['released weights'] == NET and row['released weights: images'] == '6'
    assert row['released weights: protocol'] == 'imagenet test, as_given, 224 pixels'
    assert row['released weights: digest'] == record['digest'] and len(record['digest']) == 64
    (row,) = [row for row in rows(capsys, 'released', '--runs', str(path))[0] if row['weights'].startswith(NET)]
    assert (row['images'], row['digest']) == ('6', record['digest'])


def test_two_weights_of_one_net_are_two_rows_and_errors_are_errors(tmp_path, capsys):
    paths = [kept(tmp_path / '1'), kept(tmp_path / '2', reference='timm/resnet50.tv_in1k', top1=75.9)]
    found, _ = rows(capsys, 'fb.resnet.torch', '--runs', *paths)
    mine = [row for row in found if row['released weights']]
    assert [row['released weights, measured: top-1'] for row in mine] == ['24.00', '24.10']  # of errors, as the paper
    assert {row['net'] for row in mine} == {'ResNet-50'} and len(found) == len(published.table('fb.resnet.torch')) + 1


@pytest.mark.parametrize(
    ('changes', 'why'),
    [
        (dict(data='imagenet_v2_top_images'), 'no line of the table'),
        (dict(protocol='googlenet_144'), 'no line'),
        (dict(resolution=320), 'no line'),
        (dict(subset={'limit': 100, 'of': 50_000}, n_seen=100), 'a part of'),
        (dict(split='train'), 'a part of'),
        (dict(members=[]), 'an ensemble'),
        (dict(reference=None), 'no released'),
        (dict(kind='compressed'), 'no released'),
        (dict(top1='high'), 'damaged'),
    ],
)
def test_what_is_no_evaluation_of_the_line_is_left_out_and_named(tmp_path, capsys, changes, why):
    paths = [kept(tmp_path / 'good'), kept(tmp_path / 'other', **changes)]
    found, said = rows(capsys, 'fb.resnet.torch', '--runs', *paths)
    assert sum(bool(row['released weights']) for row in found) == 1 and why in said and str(tmp_path / 'other') in said


def test_every_reference_has_a_line_with_the_evidence_of_its_figure(capsys):
    found, _ = rows(capsys, 'released')
    nets = {registry.current_name(row['weights']).partition('.')[0] for row in found}
    assert nets == set(registry.references())
    column = 'top-1 accuracy (%), published'
    assert all(row[f'{column}: evidence'] for row in found if row[column]) and not any(row['images'] for row in found)
    # torchvision's documentation: resnet50, IMAGENET1K_V1, acc@1 76.13, acc@5 92.862.
    (row,) = [row for row in found if row['weights'] == 'torchvision/resnet50.IMAGENET1K_V1']
    assert (row[column], row['top-5 accuracy (%), published']) == ('76.13', '92.862')


def test_weights_with_another_tag_are_not_set_beside_a_figure_that_is_not_theirs(tmp_path, capsys):
    tags = ('torchvision/resnet50', 'torchvision/resnet50.IMAGENET1K_V2', 'torchvision/resnet50.OTHER')
    paths = [kept(tmp_path / str(number), reference=tag) for number, tag in enumerate(tags)]
    found, _ = rows(capsys, 'released', '--runs', *paths)
    mine = [row for row in found if row['weights'].startswith('torchvision/resnet50')]
    column = 'top-1 accuracy (%), published'
    assert [(row['weights'].partition('.')[2], row[column], row['images']) for row in mine] == [
        ('IMAGENET1K_V1', '76.13', '50000'),
        ('IMAGENET1K_V2', '80.858', '50000'),
        ('OTHER', '', '50000'),
    ]


@pytest.mark.parametrize(
    ('text', 'part'), [(None, 'there is no'), ('# nothing\n', 'names no net'), ('a\na\n', 'or one twice')]
)
def test_bad_lists_are_one_line(tmp_path, text, part):
    if text is not None:
        (tmp_path / 'nets.txt').write_text(text)
    with pytest.raises(UserError, match=part):
        evaluate.main([f'--weights=@{tmp_path}/nets.txt', '--data=imagenet'])
