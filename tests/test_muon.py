"""Muon against torch's own, and what it is for: every direction moves alike."""

import pytest
import torch

from llm.muon import Muon, orthogonalised


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrix = some(1, *shape)
    made = orthogonalised(matrix)[0]
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.4 and values.max() < 1.3  # the polynomial's own range around 1
    U, _, V = torch.linalg.svd(matrix[0], full_matrices=False)
    inner = U.T @ made @ V.T  # diagonal in the directions of the matrix itself
    assert (inner - torch.diag(inner.diag())).abs().max() < 1e-4


@pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="this torch has no Muon of its own to compare with"
)
@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12)])
def test_ten_steps_equal_torchs_own(shape):
    ours, theirs = (torch.nn.Parameter(some(*shape)) for _ in range(2))
    a = Muon([ours], lr=0.02, weight_decay=0.1, dtype=torch.bfloat16)  # torch's works in bf16
    b = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True)
    for step in range(10):
        ours.grad = some(*shape, seed=step + 1)
        theirs.grad = ours.grad.clone()
        a.step()
        b.step()
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)  # bf16 noise; ten steps move by up to 0.36
    assert not torch.allclose(ours, some(*shape), atol=0.05)


def test_parts_of_a_matrix_move_as_if_alone():
    whole = torch.nn.Parameter(some(24, 8))
    parts = [torch.nn.Parameter(p.clone()) for p in whole.detach().split((16, 4, 4))]
    gradient = some(24, 8, seed=1)
    whole.grad = gradient.clone()
    for p, g in zip(parts, gradient.split((16, 4, 4))):
        p.grad = g.clone()
    Muon([whole], lr=0.1, parts={whole: (16, 4, 4)}).step()
    Muon(parts, lr=0.1).step()
    torch.testing.assert_close(whole.detach(), torch.cat([p.detach() for p in parts]))
