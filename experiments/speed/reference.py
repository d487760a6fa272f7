"""What video-diffusion-pytorch's network gives for stated weights and clips, for tests/nets, which have no PyTorch.

    .venv-peers/bin/python -m experiments.speed.reference

Weights and inputs are drawn by numpy from the names of the arrays, so that only outputs and gradients are stored; of
the gradient of every array its norm and its product with a drawn direction.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).parents[2] / "tests" / "nets" / "arrays" / "video_diffusion_pytorch.npz"
SIZES = {  # name -> dim, dim_mults, frames, height and width
    "many_frames": (8, (1, 2), 40, 8),  # beyond the distances that the table of biases tells apart
    "three_levels": (16, (1, 2, 4), 8, 16),
    "main": (32, (1, 2, 4), 16, 32),  # that of the tables of speed
}
STEPS = (0, 7, 400, 999)  # of the chain, one a clip


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers that the name stands for."""
    return np.random.default_rng(list(name.encode())).standard_normal(shape, np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of a state dict at the scale of a trained network."""
    noise = drawn(name, shape)
    if name.endswith("gamma"):
        return 1 + 0.3 * noise
    if name.endswith("bias"):
        return 0.3 * noise
    if name.endswith("relative_attention_bias.weight"):
        return noise
    fan_in = noise.size / shape[0]
    return noise / np.float32(np.sqrt(fan_in))


def clips(size: str) -> tuple[np.ndarray, np.ndarray]:
    """Noisy clips and what is to be predicted: [clips, channels, frames, height, width]."""
    _, _, frames, side = SIZES[size]
    shape = (len(STEPS), 3, frames, side, side)
    return drawn(f"{size} noisy", shape), drawn(f"{size} noise", shape)


def thinned(output: np.ndarray) -> np.ndarray:
    """What is stored of an output [clips, channels, frames, height, width]."""
    return output[:, :, ::4, ::4]


def main() -> None:
    import torch

    from experiments.speed.torch_peers import video_diffusion_pytorch

    made = {}
    for size, (dim, multipliers, _, _) in SIZES.items():
        network = video_diffusion_pytorch().Unet3D(dim=dim, dim_mults=multipliers)
        shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        weights = {name: weight(name, shape) for name, shape in shapes.items() if not name.endswith("freqs")}
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
        noisy, noise = map(torch.from_numpy, clips(size))
        output = network(noisy, torch.tensor(STEPS))
        torch.nn.functional.mse_loss(output, noise).backward()
        gradients = {name: value.grad.numpy() for name, value in network.named_parameters() if value.requires_grad}
        products = {name: float(np.vdot(drawn(f"{name} direction", g.shape), g)) for name, g in gradients.items()}
        norms = {name: float(np.linalg.norm(g.astype(np.float64))) for name, g in gradients.items()}
        made[f"{size}/output"] = thinned(output.detach().numpy())
        made[f"{size}/told"] = json.dumps({"shapes": shapes, "norms": norms, "products": products})
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **made)


if __name__ == "__main__":
    main()
