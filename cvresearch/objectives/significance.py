"""How sure a number is: bootstrap intervals, and McNemar's test of two classifiers on the same images."""

import numpy as np
from jaxtyping import Shaped
from scipy import stats


def bootstrap(
    values: Shaped[np.ndarray, ' images'], level: float = 0.95, resamples: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13).

    Args:
      values: one number an image, such as whether it is right.
      level: of confidence.
      resamples: of the images, with replacement.
      seed: of the resampling; the same seed gives the same interval.
    """
    values = np.asarray(values, np.float64)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method='percentile',
        batch=64,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def mcnemar(first: Shaped[np.ndarray, ' images'], second: Shaped[np.ndarray, ' images']) -> dict[str, float]:
    """Returns the exact two-sided McNemar test on the images that two classifiers get right.

    McNemar 1947; Dietterich 1998, "Approximate statistical tests for comparing supervised classification learning
    algorithms", section 3.1, recommends it. Exact: of the images that one alone gets right, either is as likely.

    Args:
      first: bool (images,), right or not.
      second: of the same images.

    Returns:
      only_first, only_second: how many images one alone got right; p: of a difference at least so large.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    p = stats.binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
    return dict(only_first=only_first, only_second=only_second, p=float(p))
