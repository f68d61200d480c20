"""Training of a crosscoder: a BatchTopK on two checkpoints' activations side by side."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import SAEError
from .bias_release import release_bias
from .crosscoder import Crosscoder, measured_on
from .evaluation import figures
from .joined_tokens import Joined, check_orders, fitted_scale, in_step
from .tokens import Activations
from .training import train

_PARTS = ("training", "crosscoder")


def train_crosscoder(
    sources: Mapping[str, Activations],
    *,
    d_sae: int,
    k_per_token: int = 32,
    n_tokens: int | None = None,
    batch_size: int = 4096,
    learning_rate: float | None = None,
    activation_scales: Mapping[str, float] | None = None,
    seed: int = 0,
    n_holdout_tokens: int | None = None,
    dead_window_tokens: int | None = None,
    options: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
    metadata: Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    save_every_seconds: float = 60.0,
    progress: bool = True,
) -> Crosscoder:
    """Train one dictionary on two checkpoints' activations of the same tokens.

    Each token has one code, BatchTopK of Σ_c x_c W_enc_c + b, and a reconstruction in each checkpoint; the
    loss is the sum of both squared errors, and dead latents are revived by an auxiliary loss. Both
    activations side by side are one row of 2·d_in numbers, and so it is `vitlens.saes.train` that trains,
    with all that it says there of thresholds, held-out tokens, resuming and history. Afterwards the
    decoder's bias, which it holds at the mean of the activations, is released: what latents wrote in its
    place would make those of one checkpoint look shared.

    Codes are weighted for selection with the norm of a latent's two decoder rows together,
    sqrt(‖d_1‖² + ‖d_2‖²), which is by how much it can lower the loss; the sum ‖d_1‖ + ‖d_2‖, which others
    take, prefers shared latents by up to sqrt(2). Each checkpoint has a scale of its own, at which its
    variance is d_in: both count alike, FVU for FVU, and a fine-tuning that makes all activations larger
    leaves shared features at a relative norm of 0.5. With equal `activation_scales` it would move them.

    Args:
        sources: two checkpoints, the reference first: name -> activations [token d_in], or a store's hook.
            Row t of both is the same token of the same image: one store that was written for both in step
            has such rows.
        d_sae: number of latents.
        k_per_token: mean number of active latents per token.
        n_tokens: tokens to train on, counted with repetition, as in `train`.
        batch_size: tokens per step.
        learning_rate: as in `train`.
        activation_scales: checkpoint -> what its activations are multiplied by; by default that at which
            their mean squared deviation from their mean is d_in.
        seed: of the initial weights, the choice of held-out tokens and the order of the others.
        n_holdout_tokens: as in `train`; latents are measured on them.
        dead_window_tokens: as in `train`.
        options: as in `train`, of kind `batch_topk`.
        device: where to train; by default where the first checkpoint's tensor is.
        metadata: further JSON-able entries for the SAE's metadata.
        output: a folder for this training alone, made if need be: `training` in it is as in `train`, and
            `crosscoder` what `Crosscoder.load` reads.
        save_every_seconds: as in `train`.
        progress: show progress bars.

    Returns:
        The crosscoder, measured on the held-out tokens.

    Raises:
        SAEError: there are not two checkpoints; their activations do not fit each other, are not finite or do
            not vary; a setting is out of range; or as in `train`.
        CheckpointError: a file in `output` is damaged.

    Source: Lindsey et al. (2024), "Sparse crosscoders for cross-layer features and model diffing"; with
    BatchTopK: Minder, Dumas et al. (2025), "Overcoming sparsity artifacts in crosscoders to interpret
    chat-tuning" (arXiv 2504.02922).

    Example:
        >>> import torch
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=64, progress=False)
        >>> crosscoder = train_crosscoder({"base": x, "tuned": 2 * x}, **settings)
        >>> codes = crosscoder.encode({"base": x, "tuned": 2 * x})
        >>> {name: tuple(each.shape) for name, each in crosscoder.decode(codes).items()}
        {'base': (400, 8), 'tuned': (400, 8)}
        >>> crosscoder.summary()["n"].to_dict()
        {'shared': 16, 'base only': 0, 'tuned only': 0, 'between': 0, 'dead': 0}
    """
    first, second = _two(sources)
    given = dict(activation_scales or {})
    _check_scales(given, sources)
    folder = None if output is None else _folder(Path(output))
    parts = in_step(sources)
    check_orders(parts, seed)
    scales = [given.get(name) or fitted_scale(part) for name, part in parts.items()]
    joined = Joined(parts, scales)
    sae = train(
        joined,
        kind="batch_topk",
        d_sae=d_sae,
        k_per_token=k_per_token,
        n_tokens=n_tokens,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        n_holdout_tokens=n_holdout_tokens,
        dead_window_tokens=dead_window_tokens,
        options=options,
        device=device,
        metadata=metadata,
        output=None if folder is None else folder / "training",
        save_every_seconds=save_every_seconds,
        progress=progress,
    )
    if folder is not None and (folder / "crosscoder").exists():
        return Crosscoder.load(folder / "crosscoder", sae.device)
    used, holdout = joined.split(sae.cfg.metadata.n_holdout_tokens, seed=seed)
    release_bias(sae, used, batch_size=batch_size, seed=seed, progress=progress)
    again = figures(sae, holdout, batch_size=batch_size, progress=progress)
    for name in again.keys() - {"n_tokens"}:
        sae.cfg.metadata[name] = again[name]
    crosscoder = measured_on(sae, (first, second), (scales[0], scales[1]), holdout, batch_size, progress)
    if folder is not None:
        crosscoder.save(folder / "crosscoder")
    return crosscoder


def _two(sources: Mapping[str, Activations]) -> tuple[str, str]:
    if len(sources) != 2:
        raise SAEError(
            f"There are activations of {', '.join(map(repr, sources)) or 'no checkpoint'}.",
            expected="those of two checkpoints",
            remedy='Pass {"base": activations, "tuned": activations}, the reference first.',
        )
    first, second = sources
    return first, second


def _check_scales(given: Mapping[str, float], sources: Mapping[str, Activations]) -> None:
    for name, scale in given.items():
        if name not in sources or not (scale > 0 and math.isfinite(scale)):
            raise SAEError(
                f"activation_scales has {scale} for {name!r}.",
                expected=f"finite numbers above 0 for {' or '.join(map(repr, sources))}",
                remedy="Leave it out to fit them to the sources.",
            )


def _folder(output: Path) -> Path:
    """The folder of a training, if it can be one."""
    if output.exists() and not (
        output.is_dir()
        and all(entry.name in _PARTS or entry.name.startswith(".") for entry in output.iterdir())
    ):
        raise SAEError(
            f"{output} exists and holds no training of a crosscoder.",
            expected="a new folder, an empty one, or that of this training",
            remedy="Name another output.",
        )
    return output
