"""How far the numbers of an accelerator's arithmetic are from those of float64."""

from __future__ import annotations

import numpy as np


def accuracy(output: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return largest and mean errors of ``output``, those of ``reference``, and how often the largest output agrees.

    Both are (vectors, outputs). Errors are of what is finite in ``output``; of nothing they are 0, and all agree.
    """
    finite = np.isfinite(output)
    error = output - reference if finite.all() else output[finite] - reference[finite]
    return {
        "max_abs_error": float(np.abs(error).max(initial=0.0)),
        "rms_error": _root_mean_square(error),
        "max_abs_reference": float(np.abs(reference).max(initial=0.0)),
        "rms_reference": _root_mean_square(reference),
        "same_argmax": float(np.mean(output.argmax(axis=1) == reference.argmax(axis=1))) if output.size else 1.0,
    }


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0
