"""Three small generations that the test of chains trains: from labels, by the first one's labels, from its weights."""

from configs import common


def get_config(arg=''):
    c = common.classification('fake', epochs=1, batch_size=8)
    c.data = dict(name='fake', image_size=8, channels=1, classes=4, train=128, test=32, labels=32)
    c.unlabelled = dict(name='rest', ratio=2)
    c.model = dict(name='softmax_regression')
    c.optimizer = dict(name='sgd')
    c.schedule = dict(name='constant', peak=0.1)
    c.mesh.data = 1
    return common.finish(c, arg, first=lambda c: None)


def chain(arg=''):
    alone = {'unlabelled.name': 'none', 'unlabelled.ratio': 1}
    student = {'method.name': 'soft_labels'}
    if arg == 'first':
        return [student]
    return [alone, student, alone | {'init.weights': '{previous}', 'init.head': 'keep'}]
