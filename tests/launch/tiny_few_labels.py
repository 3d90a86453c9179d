"""A few updates by each kind of method, for the test of the table of few labels."""

from configs import common


def get_config(arg=''):
    c = common.classification('fake', epochs=1, batch_size=8)
    c.data = dict(name='fake', image_size=8, channels=1, classes=4, train=128, test=32, labels=32)
    c.model = dict(name='softmax_regression')
    c.optimizer = dict(name='sgd')
    c.schedule = dict(name='constant', peak=0.1)
    c.average = dict(name='ema', decay=0.9)
    c.mesh.data = 1
    return common.finish(c, arg, meta_pseudo_labels=meta_pseudo_labels)


def meta_pseudo_labels(c):
    c.unlabelled = dict(name='rest', ratio=2)
    c.method = dict(name='meta_pseudo_labels', wait_steps=1, uda_warmup_steps=2)


def chain(arg=''):
    if arg == 'meta_pseudo_labels':
        alone = {'method.name': 'supervised', 'unlabelled.name': 'none'}
        return [{}, alone | {'init.weights': '{previous}', 'init.head': 'keep'}]
    return [{}, {'method.name': 'soft_labels', 'unlabelled.name': 'rest', 'unlabelled.ratio': 2}]
