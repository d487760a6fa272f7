"""The peers that need PyTorch, imported in the environment of their own."""

from __future__ import annotations

import sys
import types
from types import ModuleType


def video_diffusion_pytorch() -> ModuleType:
    """The package's one module. It imports torchvision for its data sets of GIFs alone, which nothing here uses; where
    torchvision is not installed, an empty one stands in.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        for name in ("torchvision", "torchvision.transforms", "torchvision.utils"):
            sys.modules[name] = types.ModuleType(name)
        stand_in = sys.modules["torchvision"]
        stand_in.transforms, stand_in.utils = sys.modules["torchvision.transforms"], sys.modules["torchvision.utils"]
        stand_in.transforms.ToTensor = lambda: None  # the default of an argument
    from video_diffusion_pytorch import video_diffusion_pytorch as module

    return module
