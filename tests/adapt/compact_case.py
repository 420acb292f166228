"""A small net of a user's, trained on points around centres, and what compacts it in seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dropasr

QUICK = {"batch_size": 64, "precision": "float32", "learning_rate": 0.05, "chunk_batch_frames": 150}
FEW = {"frames_per_update": 128}
CENTRES = np.random.default_rng(0).standard_normal((6, 12)).astype(np.float32)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(count: int = 1500, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, count)
    return torch.from_numpy(CENTRES[labels] + 0.7 * rng.standard_normal((count, 12)).astype(np.float32)), torch.from_numpy(labels)


def batches(count: int = 1500, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    inputs, labels = rows(count, seed)
    return list(zip(inputs.split(50), labels.split(50)))


def trained(outputs: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(12, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Dropout(0.1), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)
    )
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for inputs, labels in batches() * 4 if outputs == 6 else []:
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimiser.step()
    return net


def shrink(net, data, criterion="cross_entropy", budget="macs=1/4", **other):
    other = {"epochs": 5, "train": QUICK, "options": FEW, "say": lambda message: None, **other}
    return dropasr.compact(net, data, criterion, budget, **other)


def error_of(module: nn.Module) -> float:
    inputs, labels = rows(2000, seed=9)
    with torch.no_grad():
        return 100 * float((module(inputs).argmax(dim=1) != labels).float().mean())
