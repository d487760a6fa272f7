"""The inception score: are single clips told apart with certainty, and all of them of many classes? (Salimans et al.
2016)

With the logits of C3D on UCF-101 it is the video inception score of Saito et al. 2017; the name of a score says whose
logits.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax


def inception_score(logits: Float[np.ndarray, "n classes"], num_splits: int = 10) -> tuple[float, float]:
    """exp of the mean KL(p(class | clip) || p(class)), in [1, classes], for each of `num_splits` parts of the clips.

    p(class) is the mean over the part. The parts are the clips in their order, as many in each but for one.

    Returns:
      mean and standard deviation (over N) over the parts.
    """
    if not 1 <= num_splits <= len(logits):
        raise ValueError(f"{len(logits)} clips cannot be split into {num_splits} parts; give 1 to {len(logits)}.")
    scores = [_score(part) for part in np.array_split(logits.astype(np.float64), num_splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: Float[np.ndarray, "n classes"]) -> float:
    log_p = log_softmax(logits, axis=1)
    p = np.exp(log_p)
    marginal = np.maximum(p.mean(axis=0), np.finfo(p.dtype).tiny)  # a class that nobody has counts for nothing
    return math.exp(np.mean(np.sum(p * (log_p - np.log(marginal)), axis=1)))
