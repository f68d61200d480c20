"""A crosscoder: one dictionary of two checkpoints, with a decoder for each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import CheckpointError, SAEError
from . import storage
from ._sae_lens import SAE
from .checks import check_batch_size
from .crosscoder_entry import read_entry, write_entry
from .joined_tokens import Joined, in_step
from .latent_kinds import artifacts_of, kinds_of, summary_of
from .latent_scaling import halves, latent_scaling
from .tokens import Activations, Tokens, as_tokens

LATENT_COLUMNS = ("n_active", "total_code", "nu_error", "nu_reconstruction")


@dataclass(frozen=True, eq=False, repr=False)
class Crosscoder:
    """One dictionary of two checkpoints' activations of the same tokens, as `train_crosscoder` returns it.

    A latent has one code per token, read from both checkpoints, and a decoder row in each. A checkpoint's
    activations are multiplied by its scale before they are read, so that both vary alike; norms of decoder
    rows are of scaled activations, and a latent's two rows have norm 1 together.

    Attributes:
        sae: a sae-lens `JumpReLUSAE` of both checkpoints' scaled activations side by side, [token 2·d_in].
        checkpoints: their names, the reference first.
        scales: what each one's activations are multiplied by.
        latents: of the tokens that it was measured on, a row a latent: `n_active` (tokens on which it is
            active), `total_code`, `nu_error` and `nu_reconstruction` (see `table`).
        fvu: checkpoint -> fraction of its variance unexplained on those tokens.
        n_measured_tokens: how many they are; after training, the held-out ones.

    Example:
        See `train_crosscoder`.
    """

    sae: SAE
    checkpoints: tuple[str, str]
    scales: tuple[float, float]
    latents: pd.DataFrame
    fvu: Mapping[str, float]
    n_measured_tokens: int

    @property
    def d_in(self) -> int:
        """How wide one checkpoint's activations are."""
        return int(self.sae.cfg.d_in) // 2

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return int(self.sae.cfg.d_sae)

    @torch.no_grad()
    def encode(self, activations: Mapping[str, Tensor]) -> Float[Tensor, "*batch d_sae"]:
        """The codes of tokens, from both checkpoints' activations of them.

        Args:
            activations: checkpoint -> [..., d_in], unscaled.

        Returns:
            One code per latent and token, in units of scaled activations.

        Raises:
            SAEError: the checkpoints are not the crosscoder's, or a width or the two shapes do not fit.
        """
        shapes = {name: tuple(each.shape) for name, each in activations.items()}
        self._check_names(activations)
        if len(set(shapes.values())) > 1 or any(shape[-1:] != (self.d_in,) for shape in shapes.values()):
            raise SAEError(
                f"The activations have the shapes {shapes}.",
                expected=f"one shape [..., {self.d_in}] for both",
                remedy="Take both at the hook that it was trained on, of the same tokens.",
            )
        scaled = [
            activations[name].to(self.sae.device).float() * scale
            for name, scale in zip(self.checkpoints, self.scales, strict=True)
        ]
        codes: Tensor = self.sae.encode(torch.cat(scaled, dim=-1))
        return codes

    @torch.no_grad()
    def decode(self, codes: Float[Tensor, "*batch d_sae"]) -> dict[str, Float[Tensor, "*batch d_in"]]:
        """Each checkpoint's activations, as the `codes` say, unscaled."""
        return self._unscaled(self.sae.decode(codes))

    @property
    def decoder(self) -> dict[str, Float[Tensor, "d_sae d_in"]]:
        """Checkpoint -> what a code of 1 writes, unscaled."""
        return self._unscaled(self.sae.W_dec)

    @property
    def relative_norm(self) -> Float[Tensor, " d_sae"]:
        """Norm of the second checkpoint's decoder row as a share of both: 0 first only, 1 second only.

        NaN where both rows are 0.

        Source: Lindsey et al. (2024), "Sparse crosscoders for cross-layer features and model diffing".
        """
        norms: Tensor = self._rows.norm(dim=-1)
        return norms[1] / norms.sum(dim=0)

    @property
    def decoder_cosine(self) -> Float[Tensor, " d_sae"]:
        """Cosine between the two decoder rows; NaN where one is 0."""
        rows = self._rows
        cosine: Tensor = rows.prod(dim=0).sum(dim=-1) / rows.norm(dim=-1).prod(dim=0)
        return cosine

    def kinds(self, *, low: float = 0.1, high: float = 0.9, shared_within: float = 0.1) -> pd.Series:
        """What each latent belongs to, by its relative norm.

        Args:
            low: up to here a latent is the first checkpoint's only.
            high: from here it is the second's only.
            shared_within: as near to 0.5 it is shared.

        Returns:
            By latent, `shared`, `<checkpoint> only`, `between`, or `dead`: active on none of the tokens that
            it was measured on, or writing nothing.

        Raises:
            SAEError: the bounds overlap or are outside 0 to 1.
        """
        latents = self.latents.assign(relative_norm=self.relative_norm.cpu().numpy())
        return kinds_of(latents, self.checkpoints, low, high, shared_within)

    def table(
        self,
        *,
        low: float = 0.1,
        high: float = 0.9,
        shared_within: float = 0.1,
        max_nu_error: float = 0.2,
        max_nu_reconstruction: float = 0.5,
    ) -> pd.DataFrame:
        """The latents, and whether those of one checkpoint only are artifacts.

        `nu_error` is how well the latent's codes and its own checkpoint's decoder row would explain the other
        checkpoint's error, by least squares, as a share of how well they explain their own;
        `nu_reconstruction` is the same of the reconstruction. Of a latent that truly is one checkpoint's both
        are near 0. If the first is high, the other checkpoint has the feature too, and its decoder row was
        shrunk: `shrunken`. If the second is, other latents write it there: `decoupled`. Both near 0 of a
        latent that is `between` say that its two rows write different things.

        Args:
            low: as in `kinds`.
            high: as in `kinds`.
            shared_within: as in `kinds`.
            max_nu_error: above it, a latent of one checkpoint only is `shrunken`.
            max_nu_reconstruction: above it, it is `decoupled`.

        Returns:
            By `latent`: `relative_norm`, `decoder_cosine`, `kind`, `artifact` (`shrunken`, `decoupled`,
            `both`, or empty), `n_active`, `total_code`, `nu_error`, `nu_reconstruction`.

        Raises:
            SAEError: as for `kinds`.

        Source: Minder, Dumas et al. (2025), "Overcoming sparsity artifacts in crosscoders to interpret
        chat-tuning" (arXiv 2504.02922).
        """
        table = pd.DataFrame(
            {
                "relative_norm": self.relative_norm.cpu().numpy(),
                "decoder_cosine": self.decoder_cosine.cpu().numpy(),
                "kind": self.kinds(low=low, high=high, shared_within=shared_within),
                **self.latents,
            },
            index=self.latents.index,
        )
        table.insert(3, "artifact", artifacts_of(table, max_nu_error, max_nu_reconstruction))
        return table

    def summary(self, **thresholds: float) -> pd.DataFrame:
        """How many latents are of each kind.

        Args:
            thresholds: those of `table`.

        Returns:
            By `kind`: `n`, `share` (of the live latents), `share_of_code` (of the sum of all codes),
            `median_decoder_cosine`, `n_artifacts`.

        Raises:
            SAEError: as for `kinds`.
        """
        return summary_of(self.table(**thresholds), self.checkpoints)

    def measured(
        self, activations: Mapping[str, Activations], *, batch_size: int = 4096, progress: bool = True
    ) -> Crosscoder:
        """The same crosscoder, measured on other tokens.

        Args:
            activations: checkpoint -> [token d_in], or a store's hook; the same tokens for both.
            batch_size: tokens encoded at a time.
            progress: show a bar if it takes more than a second.

        Returns:
            A crosscoder of the same weights, with other `latents`, `fvu` and `n_measured_tokens`.

        Raises:
            SAEError: the activations do not fit the crosscoder or each other.
        """
        self._check_names(activations)
        parts = in_step({name: activations[name] for name in self.checkpoints})
        tokens = Joined(parts, self.scales)
        return measured_on(self.sae, self.checkpoints, self.scales, tokens, batch_size, progress)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to the folder `path`, in sae-lens's format as `vitlens.saes.save` does.

        `sae_lens.SAE.load_from_disk` reads its `sae`; what else there is lies in the SAE's metadata.

        Args:
            path: the folder; a crosscoder or SAE that stands there is replaced.

        Raises:
            SAEError: there are NaN in the weights, or `path` holds something else.
        """
        columns = self.latents.astype(object).where(self.latents.notna(), None)  # JSON has no NaN
        said = {
            "checkpoints": list(self.checkpoints),
            "scales": list(self.scales),
            "latents": columns.to_dict(orient="list"),
            "fvu": dict(self.fvu),
            "n_measured_tokens": self.n_measured_tokens,
        }
        write_entry(self.sae, said)
        storage.save(self.sae, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Crosscoder:
        """Read what `save` wrote, or `train_crosscoder(output=...)` in its folder `crosscoder`.

        Args:
            path: the folder.
            device: where to put the weights.

        Returns:
            The crosscoder.

        Raises:
            CheckpointError: a file is missing or damaged, or it holds an SAE that is no crosscoder.
        """
        sae = storage.load(path, device)
        entry = read_entry(sae, path)
        try:
            first, second = entry["checkpoints"]
            return cls(
                sae=sae,
                checkpoints=(first, second),
                scales=(entry["scales"][0], entry["scales"][1]),
                latents=_frame(entry["latents"]),
                fvu=entry["fvu"],
                n_measured_tokens=entry["n_measured_tokens"],
            )
        except Exception as error:  # whatever another content leads to
            raise CheckpointError(
                f"What {os.fspath(path)} says of a crosscoder cannot be read "
                f"({type(error).__name__}: {error}).",
                expected="the entries that Crosscoder.save writes",
                remedy="Fetch or train it anew.",
            ) from error

    @property
    def _rows(self) -> Float[Tensor, "checkpoint d_sae d_in"]:
        return halves(self.sae.W_dec.double())

    def _check_names(self, activations: Mapping[str, Any]) -> None:
        if activations.keys() != set(self.checkpoints):
            raise SAEError(
                f"There are activations of {', '.join(map(repr, activations)) or 'no checkpoint'}.",
                expected=f"those of {self.checkpoints[0]!r} and {self.checkpoints[1]!r}",
                remedy="Name them as in training.",
            )

    def _unscaled(self, rows: Float[Tensor, "*batch both"]) -> dict[str, Float[Tensor, "*batch d_in"]]:
        return {
            name: half / scale
            for name, half, scale in zip(self.checkpoints, rows.chunk(2, dim=-1), self.scales, strict=True)
        }


def measured_on(
    sae: SAE,
    checkpoints: tuple[str, str],
    scales: tuple[float, float],
    tokens: Tokens,
    batch_size: int,
    progress: bool,
) -> Crosscoder:
    """The crosscoder that an SAE of both checkpoints is, measured on tokens.

    Args:
        sae: in its inference form, of both checkpoints' scaled activations side by side.
        checkpoints: their names.
        scales: what each one's activations were multiplied by.
        tokens: [token 2·d_in], as the SAE reads them.
        batch_size: tokens encoded at a time.
        progress: show a bar if it takes more than a second.

    Raises:
        SAEError: the tokens are of another width, or the batch is empty.
    """
    check_batch_size(batch_size)
    found = latent_scaling(sae, as_tokens(tokens, "The activations", d_in=sae.cfg.d_in), batch_size, progress)
    latents = {name: getattr(found, name).tolist() for name in LATENT_COLUMNS}
    return Crosscoder(
        sae=sae,
        checkpoints=checkpoints,
        scales=scales,
        latents=_frame(latents),
        fvu=dict(zip(checkpoints, found.fvu, strict=True)),
        n_measured_tokens=tokens.n_tokens,
    )


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    frame = pd.DataFrame(columns, columns=LATENT_COLUMNS, dtype=float).rename_axis("latent")
    return frame.astype({"n_active": int})
