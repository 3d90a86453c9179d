"""Several classifiers as one, which answers with the mean of their probabilities.

Huang et al. 2017, "Snapshot ensembles", arXiv:1704.00109, section 3. The files of runs are averaged by
`evaluation/ensemble.py`; here the ensemble is a net of its own, so that it can leave as one file.
"""

import hashlib
from collections.abc import Sequence

from cvresearch.base.errors import UserError
from cvresearch.interop.classifier import Classifier, Provenance
from cvresearch.nn.ensemble import Ensemble


def of(members: Sequence[Classifier]) -> Classifier:
    """Returns the classifier that several are together; one alone is itself.

    The classes are in the order of the first, by their names.

    Raises:
      UserError: members of other classes, whose images are prepared otherwise, or of another kind of question.
    """
    first, *others = members
    if not others:
        return first
    for other in others:
        pair = f'{first.provenance.name} and {other.provenance.name}'
        if other.preprocessing != first.preprocessing:
            raise UserError(
                f'{pair} prepare images differently ({first.preprocessing}; {other.preprocessing}); the members of an '
                'ensemble are given the same images'
            )
        if sorted(other.class_names) != sorted(first.class_names) or other.multi_label != first.multi_label:
            raise UserError(f'{pair} answer with other classes; the members of an ensemble have the same')
    orders = tuple(_order(first.class_names, member.class_names) for member in members)
    module = Ensemble(tuple(member.module for member in members), orders, first.multi_label)
    variables = {
        kind: {
            f'members_{number}': member.variables[kind]
            for number, member in enumerate(members)
            if kind in member.variables
        }
        for kind in ('params', 'batch_stats')
        if any(kind in member.variables for member in members)
    }
    variants = sorted({member.provenance.variant for member in members})
    digests = '\n'.join(member.provenance.digest for member in members)
    provenance = Provenance(
        'ensemble',
        ' + '.join(member.provenance.name for member in members),
        f'{len(members)} x {" + ".join(variants)}',
        hashlib.sha256(digests.encode()).hexdigest(),
        facts={'members': [member.provenance.record for member in members]},
    )
    return Classifier(module, variables, first.preprocessing, first.class_names, provenance, first.multi_label)


def _order(names: Sequence[str], others: Sequence[str]) -> tuple[int, ...]:
    if tuple(names) == tuple(others):
        return tuple(range(len(names)))
    return tuple(others.index(name) for name in names)
