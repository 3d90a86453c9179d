"""Writes pytorch.json: what PyTorch's optimizers and schedules do, step by step. The tests need no PyTorch.

python tests/optim/pytorch_sequences.py        # needs torch (tests/goldens/requirements.txt)
"""

import json
from pathlib import Path

import torch

HERE = Path(__file__).parent
GRADIENTS = [2.0, -1.0, 0.5, 3.0]
ACCURACIES = [10, 20, 20.2, 19, 30, 30, 30, 29, 28, 31, 31.2, 31.3, 30, 30, 30, 30, 32]
OPTIMIZERS = {
    'sgd': (torch.optim.SGD, dict(momentum=0.9, nesterov=True, weight_decay=0.3)),
    'adam': (torch.optim.Adam, dict(weight_decay=0.3)),
    'adamw': (torch.optim.AdamW, dict(weight_decay=0.3)),
    'adagrad': (torch.optim.Adagrad, dict(initial_accumulator_value=0.1, eps=0.0)),
}


def weights(name: str) -> list[float]:
    """Returns a weight that begins as 1 after each of the gradients, at a rate of 0.1, in float64."""
    make, arguments = OPTIMIZERS[name]
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer, found = make([weight], lr=0.1, **arguments), []
    for gradient in GRADIENTS:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        found.append(weight.item())
    return found


def one_cycle(shape: str, steps: int, rise: float) -> list[float]:
    """Returns the rate of each step of a run."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, steps, anneal_strategy=shape, pct_start=rise)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        if len(found) < steps:
            schedule.step()
    return found


def plateau(patience: int, cooldown: int, least_gain: float) -> list[float]:
    """Returns the rate, 1 at first, after each evaluation."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, 'max', 0.1, patience, least_gain, 'abs', cooldown, eps=0.0
    )
    found = []
    for accuracy in ACCURACIES:
        schedule.step(accuracy)
        found.append(optimizer.param_groups[0]['lr'])
    return found


if __name__ == '__main__':
    record = {
        'torch': torch.__version__, 'gradients': GRADIENTS, 'accuracies': ACCURACIES,
        **{name: weights(name) for name in OPTIMIZERS},
        **{
            f'one_cycle {shape} {steps} {rise}': one_cycle(shape, steps, rise)
            for shape in ('cos', 'linear') for steps, rise in [(40, 0.3), (7, 0.25), (3, 0.2)]
        },
        **{f'plateau {p} {c} {g}': plateau(p, c, g) for p, c, g in [(0, 0, 0.0), (2, 0, 0.0), (1, 2, 0.5)]},
    }  # fmt: skip
    (HERE / 'pytorch.json').write_text(json.dumps(record, indent=1) + '\n')
