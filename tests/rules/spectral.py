"""The spectral methods' published formulas, by singular value decomposition in float64 on whole matrices."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rammerge.engine.matrices.method import Grams
from rammerge.engine.matrices.symmetric import add_product, mirror
from rammerge.rules import resolve

Matrices = Sequence[Tensor]


def merged(method: str, matrices: Matrices, **params: float) -> Tensor:
    """Return what the library makes of task vectors, float64 [rows, columns] each."""
    rule = resolve(method, None, params).bind([f"agent{index}" for index in range(len(matrices))])
    (solved, *_) = rule.matrices
    view = solved.view("layers.0.self_attn.q_proj.weight", matrices[0].shape)
    seen = [matrix.T if view.transposed else matrix for matrix in matrices]
    if solved.of == "sum":
        seen = [torch.stack(list(seen)).sum(0)]
    pairs = {(i, i): _with_itself(matrix) for i, matrix in enumerate(seen)}
    if solved.compares(view):
        pairs |= {(i, j): left @ seen[j].T for j in range(len(seen)) for i, left in enumerate(seen[:j])}
    blocks = [matrix.chunk(3, 1) for matrix in seen]
    multipliers = solved.solve(Grams(view, pairs, lambda: zip(*blocks, strict=True)))
    if callable(multipliers):
        found = multipliers(seen)
        return found.T if view.transposed else found
    update = torch.stack([multiplier @ matrix for multiplier, matrix in zip(multipliers, seen, strict=True)]).sum(0)
    return update.T if view.transposed else update


def _with_itself(matrix: Tensor) -> Tensor:
    product = torch.zeros(len(matrix), len(matrix), dtype=matrix.dtype)
    add_product(product, matrix)
    mirror(product)
    return product


def iso_c(matrices: Matrices, scale: float = 1.0) -> Tensor:
    left, values, right = torch.linalg.svd(_sum(matrices), full_matrices=False)
    flat: Tensor = scale * values.mean() * left @ right
    return flat


def iso_cts(matrices: Matrices, common: float = 0.8, scale: float = 1.0) -> Tensor:
    short, agents = min(matrices[0].shape), len(matrices)
    own = round((short - int(common * short)) / agents)
    left, values, right = torch.linalg.svd(_sum(matrices), full_matrices=False)
    shared = short - own * agents
    lefts, sizes, rights = [], [], []
    for matrix in matrices:
        rest = matrix - left[:, :shared] @ left[:, :shared].T @ matrix
        vectors, found, others = torch.linalg.svd(rest, full_matrices=False)
        lefts.append(vectors[:, :own])
        sizes.append(found[:own])
        rights.append(others[:own])
    lefts.append(left[:, :shared])
    sizes.append(values[:shared])
    rights.append(right[:shared])
    return scale * torch.cat(sizes).mean() * _polar(torch.cat(lefts, 1)) @ _polar(torch.cat(rights))


def tsv_m(matrices: Matrices, rank: float = 1.0, scale: float = 1.0) -> Tensor:
    room = int(rank * min(matrices[0].shape) / len(matrices))
    parts = [torch.linalg.svd(matrix, full_matrices=False) for matrix in matrices]
    left = torch.cat([vectors[:, :room] for vectors, _, _ in parts], 1)
    values = torch.cat([found[:room] for _, found, _ in parts])
    right = torch.cat([others[:room] for _, _, others in parts])
    return scale * (_polar(left) * values) @ _polar(right)


def wudi(matrices: Matrices, ridge: float = 1e-3, scale: float = 1.0) -> Tensor:
    grams = [matrix.T @ matrix / matrix.norm() ** 2 for matrix in matrices]
    total = _sum(grams)
    wanted = _sum([matrix @ gram for matrix, gram in zip(matrices, grams, strict=True)])
    added = ridge * total.trace() / len(total) * torch.eye(len(total), dtype=total.dtype)
    solved: Tensor = scale * torch.linalg.solve(total + added, wanted.T).T
    return solved


def wudi_adam(matrices: Matrices, steps: int = 300, scale: float = 1.0, rate: float = 0.01) -> Tensor:
    """Descend as the authors' code does, on task vectors divided by their root mean square."""
    unit = torch.stack(list(matrices)).square().mean().sqrt()
    vectors = torch.stack([matrix / unit for matrix in matrices])
    sizes = vectors.flatten(1).norm(dim=1).square()
    found = torch.nn.Parameter(vectors.sum(0))
    optimizer = torch.optim.Adam([found], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        disturbed = (found - vectors) @ vectors.transpose(1, 2)
        (disturbed.square() / sizes[:, None, None]).sum().backward()
        optimizer.step()
    return scale * unit * found.detach()


def resmerge(matrices: Matrices, scale: float = 1.0) -> Tensor:
    """The authors' script, for a layer of attention."""
    parts = [torch.linalg.svd(matrix, full_matrices=False) for matrix in matrices]
    heads = [values[0] * torch.outer(left[:, 0], right[0]) for left, values, right in parts]
    residuals = [matrix - head for matrix, head in zip(matrices, heads, strict=True)]
    n, mean_length = len(matrices), torch.stack([residual.norm() for residual in residuals]).mean()
    directions = [residual / residual.norm() for residual in residuals]
    mean_direction = _sum(directions) / _sum(directions).norm()
    coherence = float(torch.stack([(direction * mean_direction).sum() for direction in directions]).mean())
    score = 0.5 * ((_mean_cosine(residuals, least=-1.0) + 1) / 2 + (min(coherence, 1.0) + 1) / 2)
    merged = mean_direction * coherence ** (1 - 0.3 * score) * mean_length
    if coherence <= 1 / n**0.5 and n > 1:
        merged = _sum(residuals) / n
    mean_head = _sum(heads) / n
    head = 0.2 * _mean_cosine(heads, least=0.0) * merged.norm() * mean_head / mean_head.norm()
    found: Tensor = scale * (merged + head)
    return found


def calibrated(merged: Tensor, matrices: Matrices, alpha: float) -> Tensor:
    """Singular Value Calibration of any merge."""
    left, values, right = torch.linalg.svd(merged, full_matrices=False)
    strengths = torch.zeros_like(values)
    for matrix in matrices:
        projected, own = left.T @ merged, left.T @ matrix
        strengths += ((projected * own).sum(1) / own.square().sum(1)).clamp(min=alpha)
    found: Tensor = (left * (values * len(matrices) / strengths)) @ right
    return found


def _mean_cosine(matrices: Matrices, least: float) -> float:
    pairs = [(left, right) for at, left in enumerate(matrices) for right in matrices[:at]]
    cosines = [max(least, float((left * right).sum() / left.norm() / right.norm())) for left, right in pairs]
    return sum(cosines) / len(cosines) if cosines else 1.0


FORMULAS: dict[str, Callable[..., Tensor]] = {
    "iso_c": iso_c,
    "iso_cts": iso_cts,
    "tsv_m": tsv_m,
    "wudi": wudi,
    "wudi_adam": wudi_adam,
    "resmerge": resmerge,
}


def drawn(shape: tuple[int, int], agents: int, seed: int = 0) -> list[Tensor]:
    """Return random matrices that have something in common, and singular values of different magnitudes."""
    rng = np.random.default_rng(seed)
    decay = np.geomspace(1.0, 0.1, shape[1])
    common = rng.standard_normal(shape)
    return [torch.from_numpy((rng.standard_normal(shape) + 0.5 * common) * decay * 1e-4) for _ in range(agents)]


def _sum(matrices: Matrices) -> Tensor:
    total: Tensor = torch.stack(list(matrices)).sum(0)
    return total


def _polar(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    factor: Tensor = left @ right
    return factor
