"""What an SAE's features do to the correct class, as analyses: by ablation, and to first order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import SAEError
from ..functional import correct_log_probability
from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..running import Reduction, table
from ..running.passes import correct_logit
from .causal import check_adds_up, checked_features, decoder_rows, feature_codes
from .codes import OfSAE
from .reading import codes_of, image_blocks, own_precision, place_of
from .rerun import Rerun

QUANTITIES = ("logit", "probability")
"""What is said of the correct class."""


@dataclass(frozen=True)
class FeatureEffect(Rerun):
    """What the model says of the correct class when one feature, or one group of them, is ablated.

    Variables (image, feature), or (image, group) where groups are given; `name` is `sae`:

    * `sae_ablated_logit_change`: the correct class's logit without the feature, less that with it; negative
      where the feature speaks for the class;
    * `sae_ablated_probability_change`: the same of its probability.

    What the feature adds is subtracted at all tokens that the SAE reads, and the SAE's error stays, as in
    `ablation_hook`. Where no token of an image has the feature, the change is exactly 0. With another `name`,
    the axis is `name_feature` or `name_group`, so that several SAEs can be read in one run.

    Cost: for each image and each feature active on it, a pass from the SAE's block on, `rows_per_pass` of
    them together. In mixed precision small changes drown in rounding.

    Args:
        sae: as in `SAECode`.
        hook_name: as in `SAECode`; any hook whose activation is [batch pos d_in].
        tokens: as in `SAECode`.
        name: as in `SAECode`.
        warns: as in `SAECode`.
        features: which features; or group -> the features that are ablated together.
        rows_per_pass: ablations in a forward pass; bounds memory, as a batch of as many images would.

    Raises:
        SAEError: as in `ablation_hook`, or `rows_per_pass` is below 1; in a run also where the model has no
            classifier.

    Source: as in `ablation_hook`.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> source = (model, images, "blocks.9.hook_resid_post")
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=8, n_tokens=80, progress=False)
        >>> sae = vl.saes.train(source, **settings)
        >>> data = vl.run(model, images, [FeatureEffect(sae, features=[3, 7])], progress=False)
        >>> data["sae_ablated_logit_change"].dims
        ('condition', 'image', 'feature')
        >>> groups = FeatureEffect(sae, features={"few": [1, 2], "many": range(3, 16)})
        >>> vl.run(model, images, [groups], progress=False)["group"].values.tolist()
        ['few', 'many']
    """

    features: Sequence[int] | Mapping[str, Sequence[int]] = field(kw_only=True)
    rows_per_pass: int = field(default=64, kw_only=True)

    def __post_init__(self, warns: bool) -> None:
        # Warned of here: from the parent's, the user's line is one further up.
        place_of(self.sae, self.hook_name, self.tokens, stacklevel=4 if warns else None)
        super().__post_init__(warns=False)
        check_adds_up(self.sae)
        if self.rows_per_pass < 1:
            raise SAEError(
                f"rows_per_pass is {self.rows_per_pass}.", expected="1 or more", remedy="Leave it out for 64."
            )
        asked = self.features
        chosen: tuple[int, ...] | dict[str, tuple[int, ...]]
        if isinstance(asked, Mapping):
            chosen = {name: tuple(checked_features(each, self.sae)) for name, each in asked.items()}
            if not chosen:
                raise SAEError(
                    "There are no groups.",
                    expected="one or more",
                    remedy='Pass {"lost": [3, 7], "new": [4]}.',
                )
        else:
            chosen = tuple(checked_features(asked, self.sae))
        object.__setattr__(self, "features", chosen)

    @property
    def dim(self) -> str:
        """The axis of what is ablated."""
        return axis_of(self.name, "group" if isinstance(self.features, Mapping) else "feature")

    @property
    def ablated(self) -> dict[str | int, tuple[int, ...]]:
        """What is ablated together, by its label."""
        if isinstance(self.features, Mapping):
            return {name: tuple(each) for name, each in self.features.items()}
        return {feature: (feature,) for feature in self.features}

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """The SAE's hook whole, and what enters its block."""
        if not model.cfg.has_classifier:
            raise SAEError(
                f"The model has no classifier (n_classes {model.cfg.n_classes}, pool '{model.cfg.pool}').",
                expected="a model with a classification head, whose answers say what features do",
                remedy="Load the classifier's weights with the model.",
            )
        return super().hooks(model)

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        groups = list(self.ablated.values())
        used = sorted({feature for group in groups for feature in group})
        column = {feature: place for place, feature in enumerate(used)}
        columns = [[column[feature] for feature in group] for group in groups]
        codes = feature_codes(self.sae, self.place.select(model, cache[self.place.hook_name]), used)
        is_active = torch.stack([(codes[..., own] != 0).flatten(1).any(dim=1) for own in columns], dim=1)
        images = model.normalize(batch.pixels.to(model.device))
        labels = batch.labels.to(logits.device)
        intact = _said(logits, labels)
        changes = intact.new_zeros(*is_active.shape, intact.shape[-1])
        rows_of_decoder = decoder_rows(self.sae, used)
        for rows in is_active.nonzero().to(logits.device).split(self.rows_per_pass):
            of_image, of_group = rows.unbind(1)
            entering = {name: activation[of_image] for name, activation in cache.items()}
            changed = entering[self.place.hook_name]
            for row, (image, group) in enumerate(rows.tolist()):
                own = columns[group]
                with own_precision(self.sae):
                    added = codes[image][:, own] @ rows_of_decoder[own]
                changed[row, model.cfg.positions(self.place.tokens)] -= added.to(changed)
            ablated = self.logits_with(model, images[of_image], ActivationCache(entering, model), changed)
            changes[of_image, of_group] = _said(ablated, labels[of_image]) - intact[of_image]
        what = "group" if isinstance(self.features, Mapping) else "feature"
        variables = {
            f"{self.name}_ablated_{quantity}_change": (
                (self.dim,),
                values,
                {"units": quantity, "long_name": f"Change of the correct class's {quantity}, {what} ablated"},
            )
            for quantity, values in zip(QUANTITIES, changes.unbind(-1), strict=True)
        }
        return table(variables, **{self.dim: list(self.ablated)})


@dataclass(frozen=True)
class FeatureAttribution(OfSAE):
    """What `FeatureEffect` would find for every feature of an SAE, to first order, from one backward pass.

    Variable (image, d_sae): `sae_estimated_logit_change`, where `name` is `sae`: minus the sum over tokens of
    what the feature adds, times the gradient of the correct class's logit there; exactly 0 where no token has
    the feature. A group's estimate is the sum of its features'.

    It is exact where the logit is linear in the activation, and in the limit of small codes;
    `attribution_agreement` says how it fares against ablation.

    Args:
        sae: as in `SAECode`.
        hook_name: as in `SAECode`; any hook whose activation is [batch pos d_in].
        tokens: as in `SAECode`.
        name: as in `SAECode`.
        warns: as in `SAECode`.

    Raises:
        SAEError: as in `SAECode`; in a run also where the SAE scales activations at run time.

    Source: Nanda (2023), "Attribution patching: activation patching at industrial scale"; of features, Marks
    et al. (2024), "Sparse feature circuits".

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> source = (model, images, "blocks.9.hook_resid_post")
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=8, n_tokens=80, progress=False)
        >>> sae = vl.saes.train(source, **settings)
        >>> data = vl.run(model, images, [FeatureAttribution(sae)], progress=False)
        >>> dict(data["sae_estimated_logit_change"].sizes)
        {'condition': 1, 'image': 12, 'd_sae': 16}
    """

    def gradient_hooks(self, model: HookedViT) -> Sequence[str]:
        """The SAE's hook."""
        check_adds_up(self.sae)
        self.place.check(model)
        return [self.place.hook_name]

    def attribute(
        self, model: HookedViT, cache: ActivationCache, gradients: ActivationCache, batch: Batch
    ) -> xr.Dataset:
        """Values of one batch."""
        x, gradient = (self.place.select(model, each[self.place.hook_name]) for each in (cache, gradients))
        d_sae = self.sae.cfg.d_sae
        with own_precision(self.sae):
            rows = decoder_rows(self.sae, range(d_sae)).float()
            estimates = [
                -(codes_of(self.sae, x[block]).float() * (gradient[block].to(rows) @ rows.T)).sum(dim=1)
                for block in image_blocks(x, d_sae)
            ]
        attributes = {
            "units": "logit",
            "long_name": "Estimated change of the correct class's logit, feature ablated",
        }
        return table(
            {f"{self.name}_estimated_logit_change": (("d_sae",), torch.cat(estimates), attributes)},
            d_sae=range(d_sae),
        )


def axis_of(name: str, kind: str) -> str:
    """What the axis of one SAE's features or groups is called in a run."""
    return kind if name == "sae" else f"{name}_{kind}"


def _said(
    logits: Float[Tensor, "row n_classes"], labels: Int[Tensor, " row"]
) -> Float[Tensor, "row quantity"]:
    """The correct class's logit and probability."""
    logits = logits.float()
    return torch.stack([correct_logit(logits, labels), correct_log_probability(logits, labels).exp()], dim=-1)
