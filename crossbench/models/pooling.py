"""Token states to vectors in PyTorch: sentence-transformers' Pooling and Normalize."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody knows it by)
from torch import Tensor

from crossbench.models.embedding import Embedding


def pool_states(states: Tensor, lengths: Tensor, embedding: Embedding) -> Tensor:
    """Vectors float32 (n, dim) of token states (total, hidden) that lie end to end.

    `lengths` int64 (n,) on the states' device are the sequences' tokens, each at least one.
    """
    rows = states.float()
    vectors = torch.cat([_pool(mode, rows, lengths) for mode in embedding.modes], dim=1)
    return F.normalize(vectors, dim=1) if embedding.normalize else vectors


def _pool(mode: str, rows: Tensor, lengths: Tensor) -> Tensor:
    ends = lengths.cumsum(0)
    if mode == "cls":
        return rows[ends - lengths]
    if mode == "lasttoken":
        return rows[ends - 1]
    count, device = len(lengths), rows.device
    owner = torch.repeat_interleave(torch.arange(count, device=device), lengths)
    if mode == "max":
        lowest = torch.full((count, rows.shape[1]), float("-inf"), device=device)
        return lowest.scatter_reduce(0, owner[:, None].expand_as(rows), rows, reduce="amax")
    sizes = lengths[:, None].float()
    if mode == "weightedmean":  # a token weighs its place, counted from one
        places = torch.arange(len(rows), device=device) - (ends - lengths)[owner] + 1
        rows, sizes = rows * places[:, None], sizes * (sizes + 1) / 2
    sums = torch.zeros(count, rows.shape[1], device=device).index_add_(0, owner, rows)
    return sums / (sizes.sqrt() if mode == "mean_sqrt_len_tokens" else sizes)
