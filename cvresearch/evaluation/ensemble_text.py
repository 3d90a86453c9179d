"""The record of an ensemble as a person reads it."""

import numpy as np

from cvresearch.base import tables


def as_text(record: dict) -> str:
    """Returns the record of an ensemble as tables: members, the curve, controls, disagreement and correlation."""
    columns, percents = ('top1', 'nll', 'brier', 'ece'), ('top1', 'mAP', 'exact_match', 'micro_f1', 'macro_f1')
    columns = columns if record.get('task') is None else percents[1:]
    shown = lambda row, **first: first | {c: f'{row[c]:.{2 if c in percents else 4}f}' for c in columns}  # noqa: E731
    parts = []
    if 'curve' in record:
        members = [shown(row, member=f'{row["run"]} at step {row["step"]}') for row in record['members']]
        parts.append(tables.render(members, ('member', *columns)))
        curve = [shown(row, **{'last m members': str(row['m'])}) for row in record['curve']]
        parts.append(tables.render(curve, ('last m members', *columns)))
        for name in ('disagreement', 'correlation'):
            numbers = np.array(record[name])
            rows = [
                {name: str(i + 1)} | {str(j + 1): f'{x:.4f}' for j, x in enumerate(row)}
                for i, row in enumerate(numbers)
            ]
            parts.append(tables.render(rows, (name, *(str(j + 1) for j in range(len(numbers))))))
    else:
        parts.append(tables.render([shown(record, net='average of weights')], ('net', *columns)))
    controls = []
    for row in record['controls']:
        nets = [(f'{row["control"]}, last step', row)]
        nets += [(f'{row["control"]}, its snapshots', row['snapshots'])] if 'snapshots' in row else []
        same = 'yes' if row['same_cost'] else f'no: {row["images_trained_on"]:,} images'
        controls += [
            shown(one, control=name) | {'same cost': same, 'p (McNemar)': f'{one["mcnemar"]["p"]:.3g}'}
            for name, one in nets
        ]
    if controls:
        parts.append(tables.render(controls, ('control', *columns, 'same cost', 'p (McNemar)')))
    how = f'{record["protocol"]}, {record["resolution"]} pixels'
    part = f' (of {record["subset"]["of"]:,})' if 'subset' in record else ''
    parts.append(f'{record["n_seen"]:,} images{part} of {record["split"]}, {how}')
    return '\n\n'.join(parts)
