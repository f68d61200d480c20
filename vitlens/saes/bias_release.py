"""The decoder's bias of a trained SAE, set free: what features carry in its place is taken out of them."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import lsmr
from tqdm.auto import tqdm

from ._sae_lens import SAE
from .tokens import Tokens

N_TOKENS = 2**18
"""Tokens that are read at most; their active codes are held, 12 bytes each."""


@torch.no_grad()
def release_bias(sae: SAE, tokens: Tokens, *, batch_size: int, seed: int, progress: bool) -> None:
    """Move the decoder's bias to where the squared error is least, and the decoder's rows with it.

    Say the best bias is the one that was held plus u. While it is held, features write u as well as they
    can: each row d_j has been given a_j · u, where Σ_j a_j f_j is as near to 1 on all tokens as codes f
    allow. So a feature of one checkpoint alone writes a little into the other, too. Here a is that
    least-squares solution, and u the vector for which (1 - Σ_j a_j f_j) · u fits the errors best; a_j · u is
    taken from the rows, and u given to the bias. Codes stay as they are, but for their units: rows are
    brought back to norm 1.

    Args:
        sae: a JumpReLU in its inference form, changed in place.
        tokens: those that it was trained on.
        batch_size: tokens encoded at a time.
        seed: of their order.
        progress: show a bar if it takes more than a second.

    Source: what least squares without an intercept leaves in the coefficients: Frisch and Waugh (1933),
    "Partial time regressions as compared with individual trends".
    """
    n_batches = max(1, min(tokens.n_tokens, N_TOKENS) // batch_size)
    rows, total_error = [], torch.zeros(sae.cfg.d_in, dtype=torch.float64, device=sae.device)
    by_code = torch.zeros(sae.cfg.d_sae, sae.cfg.d_in, dtype=torch.float64, device=sae.device)
    stream = islice(tokens.shuffled(batch_size, seed=seed), n_batches)
    for batch in tqdm(
        stream,
        total=n_batches,
        desc="Releasing bias",
        unit="batch",
        delay=1,
        leave=False,
        disable=not progress,
    ):
        x = batch.to(sae.device).float()
        codes = sae.encode(x)
        error = x - sae.decode(codes)
        total_error += error.sum(dim=0, dtype=torch.float64)
        by_code += codes.T @ error
        rows.append(sparse.csr_array(codes.cpu().double().numpy()))
    active = sparse.vstack(rows, format="csr")
    shares = lsmr(active, np.ones(active.shape[0]), atol=1e-9, btol=1e-9)[0]
    rest = 1 - active @ shares
    if rest @ rest < 1e-6 * len(rest):
        return  # features can write any offset as they are, and nothing tells it from what is theirs
    a = torch.from_numpy(shares).to(sae.device)
    u = ((total_error - a @ by_code) / float(rest @ rest)).to(sae.dtype)
    sae.W_dec -= torch.outer(a.to(sae.dtype), u)
    sae.b_enc += u @ sae.W_enc
    sae.b_dec += u
    sae.fold_W_dec_norm()
