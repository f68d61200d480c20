"""Gradient maps: where in the image the correct class's logit comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import AnalysisError
from ..functional.attribution import gradient_times_activation, integrated_gradients, sum_by_patch
from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..running import Reduction, table
from .attention import patch_grid
from .prediction import needs_classes

_WITHOUT_POSITION = ("hook_pattern", "hook_attn_scores", "hook_pooled")


@dataclass(frozen=True)
class GradientTimesActivation:
    """Each patch's activation times the gradient of the correct class's logit with respect to it.

    Variables: (image, patch_row, patch_column) `gradient_times_activation`, summed over the activation's
    width (and heads, where it has them); (image) `gradient_times_activation_prefix`, the same of the class
    token, registers and their like, together; 0 for a model without them. In units of the logit.

    Args:
        hook: an activation of tokens, [batch pos ...]. At the first block it is about the image; further on
            patches hold what attention brought them, and after the last block a head that reads the class
            token reads no patch.
        image_ids: only these images, as `named_image`; None takes all.

    Source: Shrikumar et al. (2017), "Learning important features through propagating activation differences":
    gradient × input.

    Example:
        >>> GradientTimesActivation("blocks.3.hook_attn_out").hook
        'blocks.3.hook_attn_out'
    """

    hook: str = "blocks.0.hook_resid_pre"
    image_ids: tuple[str, ...] | None = None

    def gradient_hooks(self, model: HookedViT) -> Sequence[str]:
        """The one hook."""
        if self.hook.endswith(_WITHOUT_POSITION):
            raise _no_tokens(self.hook, "has no axis of tokens")
        return [self.hook]

    def attribute(
        self, model: HookedViT, cache: ActivationCache, gradients: ActivationCache, batch: Batch
    ) -> xr.Dataset:
        """Values of one batch."""
        activation, n_prefix = cache[self.hook], model.cfg.n_prefix_tokens
        rows, columns = patch_grid(model, batch)
        if activation.ndim < 3 or activation.shape[1] != n_prefix + rows * columns:
            raise _no_tokens(self.hook, f"is {tuple(activation.shape)}")
        by_token = gradient_times_activation(activation.flatten(2), gradients[self.hook].flatten(2))
        patches = by_token[:, n_prefix:].unflatten(1, (rows, columns))
        said = "Gradient times activation at {}, for the correct class's logit"
        return table(
            {
                "gradient_times_activation": (
                    ("patch_row", "patch_column"),
                    patches,
                    {"units": "logit", "long_name": said.format("each patch")},
                ),
                "gradient_times_activation_prefix": (
                    (),
                    by_token[:, :n_prefix].sum(1),
                    {"units": "logit", "long_name": said.format("the tokens before the patches")},
                ),
            },
            patch_row=range(rows),
            patch_column=range(columns),
        )


@dataclass(frozen=True)
class IntegratedGradients:
    """Attribution of the correct class's logit to the image's patches, against a grey image.

    Variables: (image, patch_row, patch_column) `integrated_gradients`, the attribution of the pixels, summed
    within each patch; (image) `integrated_gradients_error`, by how much they miss the logit's difference from
    the baseline's logit. The error says whether `n_steps` is enough: Sundararajan et al. ask for 5 % of the
    difference. In units of the logit. Normalization shifts and scales each pixel by itself, so that the
    attribution is the same in pixels and in normalized values.

    Cost: `n_steps` forward and backward passes an image, and twice as many forward passes that say where the
    steps have to be short. Ask for a few images by `image_ids`.

    Args:
        n_steps: gradients along each path.
        baseline: the grey of the image that stands for nothing, in [0, 1]. Pixels equal to it get nothing.
        image_ids: only these images, as `named_image`; None takes all.
        images_per_pass: points on the paths that are run at once; bounds memory, that of a training step on
            as many images.

    Raises:
        AnalysisError: there is no step or no image in a pass, or the baseline is outside [0, 1].

    Source: Sundararajan et al. (2017), "Axiomatic attribution for deep networks", sections 3 and 5.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(2)]
        >>> data = vl.run(model, images, [IntegratedGradients(n_steps=4)], progress=False)
        >>> data["integrated_gradients"].dims
        ('condition', 'image', 'patch_row', 'patch_column')
    """

    n_steps: int = 32
    baseline: float = 0.5
    image_ids: tuple[str, ...] | None = None
    images_per_pass: int = 16

    def __post_init__(self) -> None:
        if min(self.n_steps, self.images_per_pass) < 1 or not 0 <= self.baseline <= 1:
            raise AnalysisError(
                f"n_steps is {self.n_steps}, images_per_pass {self.images_per_pass}, "
                f"baseline {self.baseline}.",
                expected="1 or more steps and images, and a baseline in [0, 1]",
                remedy="32 steps from a baseline of 0.5 are usual.",
            )

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """None: it reads logits and pixels."""
        needs_classes(model, self)
        return {}

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        labels, pixels = batch.labels, batch.pixels

        def score(points: Tensor, images: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
            answers = model(model.normalize(points)).float()
            scores: Tensor = answers.gather(1, labels[images].unsqueeze(1)).squeeze(1)
            return scores

        grey = torch.full_like(pixels, self.baseline)
        by_pixel = integrated_gradients(
            score, pixels, grey, n_steps=self.n_steps, rows_per_pass=self.images_per_pass
        )
        by_patch = sum_by_patch(by_pixel, model.cfg.patch_size)
        # One grey image is every image's baseline.
        start = model(model.normalize(grey[:1])).float()[0, labels]
        end = logits.float().gather(1, labels.unsqueeze(1)).squeeze(1)
        return table(
            {
                "integrated_gradients": (
                    ("patch_row", "patch_column"),
                    by_patch,
                    {"units": "logit", "long_name": "Integrated gradients of the correct class's logit"},
                ),
                "integrated_gradients_error": (
                    (),
                    by_patch.sum((1, 2)) - (end - start),
                    {
                        "units": "logit",
                        "long_name": "Integrated gradients' sum less the logit's difference",
                    },
                ),
            },
            patch_row=range(by_patch.shape[1]),
            patch_column=range(by_patch.shape[2]),
        )


def _no_tokens(hook: str, fault: str) -> AnalysisError:
    return AnalysisError(
        f"'{hook}' {fault}.",
        expected="an activation with all tokens on its second axis",
        remedy="Choose a hook of the residual stream, of an output, or of queries, keys, values or z.",
    )
