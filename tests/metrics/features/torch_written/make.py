"""Wrote the three files beside it, with PyTorch 2.13, which the project never needs: python make.py FOLDER

Tensor i of the state holds i, i + 1/8, i + 2/8, ...; `turned` is a view of the storage of another one.
"""

import sys

import torch
from torch import nn


class Unit(nn.Module):
    """Convolution and batch norm with attributes of the kinds that StyleGAN-V's module has."""

    stride: list[int]

    def __init__(self, width: int, bias: bool):
        super().__init__()
        self.padding = "SAME"
        self.stride = [1, 1, 1]
        self.conv3d = nn.Conv3d(2, width, (1, 2, 1), bias=bias)
        self.batch3d = nn.Identity() if bias else nn.BatchNorm3d(width, eps=1e-3)

    def forward(self, x):
        return self.batch3d(self.conv3d(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.name = "net"
        self.branch = nn.Sequential(nn.MaxPool3d(1), Unit(2, bias=False))
        self.last = Unit(3, bias=True)

    def forward(self, x, rescale: bool = False, return_features: bool = False):
        if rescale:
            x = 2 * x / 255 - 1
        x = self.last(self.branch(x))
        return x if return_features else x.softmax(1)


def main(folder: str) -> None:
    net = Net().eval()
    state = net.state_dict()
    for i, tensor in enumerate(state.values()):
        tensor.copy_(i + torch.arange(tensor.numel()).reshape(tensor.shape) / 8)
    torch.jit.script(net).save(f"{folder}/scripted.pt")
    state["turned"] = state["last.conv3d.weight"].permute(2, 3, 4, 1, 0)
    torch.save(state, f"{folder}/archive.pt")
    torch.save(state, f"{folder}/stream.pt", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main(sys.argv[1])
