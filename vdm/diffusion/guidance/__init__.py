"""Guidance: everything here maps denoisers to a denoiser, so no sampler knows of it."""

from vdm.diffusion.guidance.classifier_free import GUIDANCE, Guide, classifier_free, composition, ordered, weight_of
from vdm.diffusion.guidance.gradient import classifier, reconstruction
from vdm.diffusion.guidance.thresholds import THRESHOLDS, Threshold, dynamic, static

__all__ = [
    "GUIDANCE",
    "THRESHOLDS",
    "Guide",
    "Threshold",
    "classifier",
    "classifier_free",
    "composition",
    "dynamic",
    "ordered",
    "reconstruction",
    "static",
    "weight_of",
]
