"""An SAE's codes as an analysis: active features and error per image, and how often each feature is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from ..images import Batch
from ..models import ActivationCache, HookedViT, weights_sha256
from ..running import Pass, Reduction, State, table, where_known
from ._sae_lens import SAE
from .reading import Place, codes_of, image_blocks, own_precision, place_of


@dataclass(frozen=True)
class OfSAE:
    """What the analyses of an SAE share: which SAE, and where it reads.

    A stored run is told from others by the SAE's weights.
    """

    sae: SAE = field(repr=False)
    hook_name: str | None = None
    tokens: str | None = None
    name: str = "sae"
    warns: InitVar[bool] = True
    sae_sha256: str = field(init=False)

    def __post_init__(self, warns: bool) -> None:
        # From here the user's line is two up: past the constructor that dataclass makes.
        place = place_of(self.sae, self.hook_name, self.tokens, stacklevel=4 if warns else None)
        object.__setattr__(self, "hook_name", place.hook_name)
        object.__setattr__(self, "tokens", place.tokens)
        object.__setattr__(self, "sae_sha256", weights_sha256(self.sae))

    @property
    def place(self) -> Place:
        """The hook and tokens that are read."""
        assert self.hook_name is not None
        assert self.tokens is not None
        return Place(self.hook_name, self.tokens, self.sae.cfg.d_in)


@dataclass(frozen=True)
class SAECode(OfSAE):
    """How an SAE codes each image, and what it leaves of it.

    Variables (image, token_kind), where `name` is `sae`:

    * `sae_l0`: active features per token, the mean over the image's tokens;
    * `sae_n_active_features`: features active on at least one of the tokens;
    * `sae_squared_error`: Σ‖x − x̂‖² over the tokens;
    * `sae_fvu`: that over Σ‖x − b‖², b the decoder's bias: what is left of the image, as a share of what an
      SAE without an active feature would leave. Of a set of images, `vitlens.saes.evaluate` gives the FVU
      against their own mean.

    `token_kind` lists the kinds of token that the SAE reads, and `all` where there are several. The tokens
    are encoded a few images at a time and reduced inside the hook.

    Args:
        sae: in its inference form, on any device.
        hook_name: where to read; by default what `sae.cfg.metadata` says. Another one gives a warning.
        tokens: `patch`, `cls`, `register`, `distillation` or `all`; by default as the metadata says.
        name: what the variables' names start with, so that several SAEs can be read in one run.
        warns: whether another hook than the metadata's gives a warning.

    Raises:
        SAEError: the SAE is in its training form, or it is not known where it reads. In a run: the hook has
            another width than the SAE.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> source = (model, images, "blocks.9.hook_resid_post")
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=8, n_tokens=80, progress=False)
        >>> sae = vl.saes.train(source, **settings)
        >>> data = vl.run(model, images, [SAECode(sae)], progress=False)
        >>> data["sae_l0"].dims, data["token_kind"].values.tolist()
        (('condition', 'image', 'token_kind'), ['patch'])
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """The SAE's hook, reduced to sums per image and kind of token."""
        place = self.place
        place.check(model)

        def reduce(activation: Tensor) -> Float[Tensor, "batch token_kind part"]:
            x = place.select(model, activation)
            blocks = image_blocks(x, self.sae.cfg.d_sae)
            return torch.cat([self._sums(model, x[block]) for block in blocks])

        return {place.hook_name: reduce}

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        n_active, n_features, error, deviation, n_tokens = cache[self.place.hook_name].unbind(-1)
        said = {
            "l0": (n_active / n_tokens, "features", "Active features per token"),
            "n_active_features": (
                where_known(n_features.nan_to_num().long(), n_features.isfinite()),
                "features",
                "Features active on the image",
            ),
            "squared_error": (error, "activation²", "Squared error of the reconstruction"),
            "fvu": (error / deviation, "share", "Error as a share of that of the decoder's bias"),
        }
        variables = {
            f"{self.name}_{name}": (("token_kind",), values, {"units": units, "long_name": long_name})
            for name, (values, units, long_name) in said.items()
        }
        return table(variables, token_kind=self.place.kinds(model))

    def _sums(
        self, model: HookedViT, x: Float[Tensor, "image token d_in"]
    ) -> Float[Tensor, "image token_kind part"]:
        codes = codes_of(self.sae, x)
        active = codes != 0
        with own_precision(self.sae):
            x = x.to(self.sae.device).double()
            error = (x - self.sae.decode(codes).double()).square().sum(-1)
            deviation = (x - self.sae.b_dec.double()).square().sum(-1)
        sums = []
        for kind in self.place.kinds(model):
            chosen = self.place.within(model, kind)
            n_features = active[:, chosen].any(dim=1).sum(dim=1)
            n_tokens = torch.full_like(n_features, error[:, chosen].shape[1])
            n_active = active[:, chosen].sum(dim=(1, 2))
            squares = [each[:, chosen].sum(dim=1) for each in (error, deviation)]
            parts = torch.stack([n_active, n_features, *squares, n_tokens], dim=-1)
            # No feature is active on NaN: that would be an image with an L0 of 0.
            sums.append(parts.where(squares[0].isfinite().unsqueeze(-1), torch.nan))
        return torch.stack(sums, dim=1)


@dataclass(frozen=True)
class FeatureUse(OfSAE):
    """On how many tokens of a set of images each feature is active: a set statistic.

    Variable `sae_n_active_tokens` (token_kind, d_sae), where `name` is `sae`; the arguments are those of
    `SAECode`.

    Example:
        See `SAECode`.
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """The SAE's hook, reduced to a count for each feature and kind of token."""
        place = self.place
        place.check(model)

        def reduce(activation: Tensor) -> Int[Tensor, "token_kind d_sae"]:
            x = place.select(model, activation)
            counts = torch.zeros(
                len(place.kinds(model)), self.sae.cfg.d_sae, dtype=torch.int64, device=self.sae.device
            )
            for block in image_blocks(x, self.sae.cfg.d_sae):
                active = codes_of(self.sae, x[block]) != 0
                for row, kind in enumerate(place.kinds(model)):
                    counts[row] += active[:, place.within(model, kind)].sum(dim=(0, 1))
            return counts

        return {place.hook_name: reduce}

    def update(self, state: State | None, reference: Pass, checkpoint: Pass, batch: Batch) -> State:
        """The counts with one batch added."""
        counts = checkpoint.cache[self.place.hook_name].cpu()
        # The kinds are the model's, and `finish` sees no model; a stored state comes back in another order.
        kinds = {f"{row} {kind}": counts[row] for row, kind in enumerate(self.place.kinds(checkpoint.model))}
        return kinds if state is None else self.merge(state, kinds)

    def merge(self, state: State, other: State) -> State:
        """The counts of two disjoint sets of images."""
        return {kind: state[kind] + other[kind].to(state[kind].device) for kind in state}

    def finish(self, state: State) -> xr.Dataset:
        """The counts, labelled."""
        kinds = sorted(state)
        counts = torch.stack([state[kind] for kind in kinds]).cpu().numpy()
        return xr.Dataset(
            {
                f"{self.name}_n_active_tokens": (
                    ("token_kind", "d_sae"),
                    counts,
                    {"units": "tokens", "long_name": "Tokens on which the feature is active"},
                )
            },
            coords={"token_kind": [kind.split()[1] for kind in kinds], "d_sae": range(counts.shape[1])},
        )


@dataclass(frozen=True)
class TokenMoments:
    """What the variance of a hook's tokens over any set of images is made of.

    Variables (image, token_kind): `n_tokens`, `squared_spread`, Σ‖x − m‖² about the image's own mean m, and
    (image, token_kind, d_in) `mean_activation`, m itself.

    Args:
        place: which tokens of which hook.
    """

    place: Place

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """The hook, reduced to the mean and the spread of each kind of token."""
        self.place.check(model)

        def reduce(activation: Tensor) -> Float[Tensor, "batch token_kind part"]:
            x = self.place.select(model, activation).double()
            moments = []
            for kind in self.place.kinds(model):
                chosen = x[:, self.place.within(model, kind)]
                mean = chosen.mean(dim=1, keepdim=True)
                spread = (chosen - mean).square().sum(dim=(1, 2)).unsqueeze(1)
                n_tokens = torch.full_like(spread, chosen.shape[1])
                moments.append(torch.cat([n_tokens, spread, mean.squeeze(1)], dim=1))
            return torch.stack(moments, dim=1)

        return {self.place.hook_name: reduce}

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        moments = cache[self.place.hook_name]
        by_kind = ("token_kind",)
        return table(
            {
                "n_tokens": (by_kind, moments[..., 0].long(), {"units": "tokens", "long_name": "Tokens"}),
                "squared_spread": (
                    by_kind,
                    moments[..., 1],
                    {"units": "activation²", "long_name": "Squared deviation from the image's mean"},
                ),
                "mean_activation": (
                    (*by_kind, "d_in"),
                    moments[..., 2:],
                    {"units": "activation", "long_name": "Mean activation of the image"},
                ),
            },
            token_kind=self.place.kinds(model),
            d_in=range(self.place.d_in),
        )
