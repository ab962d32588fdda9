"""Pool token states to vectors in PyTorch, like sentence-transformers' Pooling and Normalize."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody knows it by)
from torch import Tensor

from crossbench.models.embedding import Embedding


def pool_states(states: Tensor, lengths: Tensor, embedding: Embedding) -> Tensor:
    """Return vectors float32 (n, dim) for the concatenated token states (total, hidden).

    `lengths` int64 (n,), on the same device, has each sequence's number of tokens, at least one.
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
    sequence_ids = torch.repeat_interleave(torch.arange(count, device=device), lengths)
    if mode == "max":
        lowest = torch.full((count, rows.shape[1]), float("-inf"), device=device)
        return lowest.scatter_reduce(0, sequence_ids[:, None].expand_as(rows), rows, reduce="amax")
    sizes = lengths[:, None].float()
    if mode == "weightedmean":  # a token's weight is its position, counted from one
        positions = torch.arange(len(rows), device=device) - (ends - lengths)[sequence_ids] + 1
        rows, sizes = rows * positions[:, None], sizes * (sizes + 1) / 2
    sums = torch.zeros(count, rows.shape[1], device=device).index_add_(0, sequence_ids, rows)
    return sums / (sizes.sqrt() if mode == "mean_sqrt_len_tokens" else sizes)
