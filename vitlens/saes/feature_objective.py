"""What an attack raises or lowers when it aims at a feature of an SAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from ..errors import SAEError
from ..models import HookedViT, weights_sha256
from ._sae_lens import SAE
from .reading import Place, place_of

DIRECTIONS = ("raise", "lower")
"""What an attack can do to a feature."""


@dataclass(frozen=True)
class FeatureObjective:
    """A feature's pre-activation, the mean over the image's tokens, for an attack to raise or to lower.

    The pre-activation is what the encoder gives before its nonlinearity: it has a gradient where the feature
    is silent too, and its code has none. Where the feature is active under ReLU or JumpReLU, it is the code.

    Args:
        sae: in its inference form, on any device.
        feature: which feature.
        direction: `raise` or `lower`.
        hook_name: where to read; by default what `sae.cfg.metadata` says. Another one gives a warning.
        tokens: `patch`, `cls`, `register`, `distillation` or `all`; by default as the metadata says.

    Raises:
        SAEError: the SAE is in its training form or has no such feature, it is not known where it reads, or
            the direction is none. In an attack: the hook has another width than the SAE.

    Example:
        >>> import timm, torch, vitlens as vl
        >>> from vitlens.images.attacks import pgd
        >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, depth=2)
        >>> model, images = vl.HookedViT(vit), [vl.images.digits("test")[i] for i in range(12)]
        >>> source = (model, images, "blocks.1.hook_resid_post")
        >>> sae = vl.saes.train(source, d_sae=16, k_per_token=2, batch_size=8, progress=False)
        >>> pixels = torch.stack([image["pixels"] for image in images[:2]])
        >>> _, report = pgd(model, pixels, objective=FeatureObjective(sae, 3), steps=2, return_report=True)
        >>> bool((report.loss_per_step[:, 0, -1] > report.loss_per_step[:, 0, 0]).all())
        True
    """

    sae: SAE = field(repr=False)
    feature: int
    direction: str = "raise"
    hook_name: str | None = None
    tokens: str | None = None
    sae_sha256: str = field(init=False)

    def __post_init__(self) -> None:
        # From here the user's line is two up: past the constructor that dataclass makes.
        place = place_of(self.sae, self.hook_name, self.tokens, stacklevel=4)
        if not 0 <= self.feature < self.sae.cfg.d_sae or self.direction not in DIRECTIONS:
            raise SAEError(
                f"The feature is {self.feature} and the direction {self.direction!r}.",
                expected=f"a feature from 0 to {self.sae.cfg.d_sae - 1}, and 'raise' or 'lower'",
                remedy="Count from 0; a feature is a row of sae.W_dec.",
            )
        if not hasattr(self.sae, "b_enc"):
            raise SAEError(
                f"The SAE is a {type(self.sae).__name__}, whose features have no single pre-activation.",
                expected="an SAE whose encoder is one linear map",
                remedy="Give an objective of your own: see vitlens.images.attacks.AttackObjective.",
            )
        object.__setattr__(self, "hook_name", place.hook_name)
        object.__setattr__(self, "tokens", place.tokens)
        object.__setattr__(self, "sae_sha256", weights_sha256(self.sae))

    @property
    def place(self) -> Place:
        """The hook and tokens that are read."""
        assert self.hook_name is not None
        assert self.tokens is not None
        return Place(self.hook_name, self.tokens, self.sae.cfg.d_in)

    @property
    def hook_names(self) -> tuple[str, ...]:
        """The one hook."""
        return (self.place.hook_name,)

    def __call__(
        self,
        model: HookedViT,
        activations: Mapping[str, Tensor],
        clean: Mapping[str, Tensor],
        logits: Tensor,
        labels: Tensor | None,
    ) -> Float[Tensor, " batch"]:
        """The mean pre-activation of each image; minus it, where it shall fall."""
        place = self.place
        x = place.select(model, activations[place.hook_name])
        entering = self.sae.process_sae_in(x.to(self.sae.device))
        pre_activation = entering @ self.sae.W_enc[:, self.feature] + self.sae.b_enc[self.feature]
        if getattr(self.sae.cfg, "rescale_acts_by_decoder_norm", False):
            pre_activation = pre_activation * self.sae.W_dec[self.feature].norm()
        mean: Tensor = pre_activation.mean(dim=1).to(x.device)
        return mean if self.direction == "raise" else -mean
