"""The conformance test of a family: what every hooked model has to be, checked on one model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .errors import FamilyError
from .models import HookedViT

_PATTERN = ("hook_attn_scores", "hook_pattern")


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw weights for which no part of a model is silent: gains near 1, biases and tokens not 0.

    Fresh models are poor subjects: LayerScale near 0 and biases of 0 hide what goes wrong there.

    Args:
        model: any module; its parameters are overwritten.
        seed: of the draw.

    Returns:
        The same module, in evaluation mode.

    Raises:
        FamilyError: it is no module.

    Example:
        >>> import timm
        >>> model = randomize(timm.create_model("vit_tiny_patch16_224", depth=1))
        >>> bool(model.blocks[0].mlp.fc1.bias.abs().sum() > 0)
        True
    """
    if not isinstance(model, nn.Module):
        raise FamilyError(
            f"The model is a {type(model).__name__}.",
            expected="a module of torch",
            remedy="Make one with timm.create_model.",
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            if ("norm" in name and name.endswith("weight")) or "gamma" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.ndim in (2, 4):
                parameter.copy_(noise * (2 / parameter[0].numel()) ** 0.5)
            elif parameter.ndim >= 2:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(0.2 * noise)
    return model.eval()


def check_family(
    model: nn.Module | HookedViT, images: Tensor | None = None, *, seed: int = 0, rtol: float = 1e-5
) -> tuple[str, ...]:
    """Prove on one model that its family opens it rightly.

    The logits are equal to the native ones to the last bit, without hooks and while any hook is read whose
    reading keeps the native operation, and to rounding while patterns are; every listed hook fires once,
    and what a hook returns there changes the output; the parts of the residual stream add up; in training
    mode with one seed, dropout and drop path draw the native numbers; readout of the last residual stream
    gives the logits.

    Args:
        model: a module of the family, small; its weights should leave no part silent (`randomize`).
        images: [batch n_channels height width]; by default two drawn ones of the model's size.
        seed: of the drawn images and of what hooks write.
        rtol: how near the logits have to be while patterns are read, relative to their largest.

    Returns:
        The hooks that were checked.

    Raises:
        FamilyError: something does not hold; it says what, and at which hook.

    Example:
        >>> import timm
        >>> model = timm.models.VisionTransformer(
        ...     img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2
        ... )
        >>> len(check_family(randomize(model)))
        23
    """
    hooked = model if isinstance(model, HookedViT) else HookedViT(model)
    native = hooked.model.eval()
    generator = torch.Generator().manual_seed(seed)
    if images is None:
        size = hooked.cfg.image_size or (32, 32)
        images = torch.randn(2, hooked.cfg.n_channels, *size, generator=generator).to(hooked.device)
    check = _Check(hooked, native, images, generator, rtol)
    check.reading()
    check.writing()
    check.adding_up()
    check.training()
    return hooked.hook_names


class _Check:
    def __init__(
        self, hooked: HookedViT, native: nn.Module, images: Tensor, generator: torch.Generator, rtol: float
    ) -> None:
        self.hooked, self.native, self.images = hooked, native, images
        self.generator, self.rtol = generator, rtol
        with torch.no_grad():
            self.logits: Tensor = native(images)

    @torch.no_grad()
    def reading(self) -> None:
        hooked = self.hooked
        _demand(
            torch.equal(hooked(self.images), self.logits), "without hooks, the logits are not the native ones"
        )
        for name in hooked.hook_names:
            fired: list[Tensor] = []
            with hooked.observing({name: fired.append}):
                output = hooked(self.images)
            _demand(len(fired) == 1, f"'{name}' fired {len(fired)} times")
            if name.endswith(_PATTERN):
                _demand(
                    self._near(output, self.logits), f"reading '{name}' changes the logits beyond rounding"
                )
            else:
                _demand(torch.equal(output, self.logits), f"reading '{name}' changes the logits")
        last = f"blocks.{hooked.cfg.n_layers - 1}.hook_resid_post"
        _, cache = hooked.run_with_cache(self.images, names_filter=last)
        _demand(
            self._near(hooked.readout(cache[last]), self.logits),
            "readout of the last layer is not the logits",
        )

    @torch.no_grad()
    def writing(self) -> None:
        def disturbed(activation: Tensor, hook: Any) -> Tensor:
            noise = torch.randn(activation.shape, generator=self.generator)
            return activation + noise.to(activation)

        for name in self.hooked.hook_names:
            output = self.hooked.run_with_hooks(self.images, fwd_hooks=[(name, disturbed)])
            _demand(not torch.equal(output, self.logits), f"writing to '{name}' does not change the logits")
        _demand(torch.equal(self.hooked(self.images), self.logits), "a hook remains after its run")

    @torch.no_grad()
    def adding_up(self) -> None:
        hooked = self.hooked
        names = [name for name in hooked.hook_names if not name.endswith(_PATTERN)]
        _, cache = hooked.run_with_cache(self.images, names_filter=names)
        for layer in range(hooked.cfg.n_layers):
            pre, post = cache["resid_pre", layer], cache["resid_post", layer]
            attn_out, mlp_out = cache["attn_out", layer], cache["mlp_out", layer]
            if f"blocks.{layer}.hook_resid_mid" in cache:
                mid = cache["resid_mid", layer]
                exact = torch.equal(pre + attn_out, mid) and torch.equal(mid + mlp_out, post)
                _demand(exact, f"block {layer}: resid_pre, attn_out and mlp_out do not add up exactly")
            else:
                _demand(
                    self._near(pre + attn_out + mlp_out, post),
                    f"block {layer}: resid_pre, attn_out and mlp_out do not add up",
                )
            result = f"blocks.{layer}.attn.hook_result"
            if result in cache:
                self._check_results(layer, cache[result], attn_out)
        if "hook_embed_norm" in cache:
            return
        entered = cache["hook_embed"]
        entered = entered + cache["hook_pos_embed"] if "hook_pos_embed" in cache else entered
        _demand(torch.equal(entered, cache["resid_pre", 0]), "embed and pos_embed do not add up to resid_pre")

    def _check_results(self, layer: int, result: Tensor, attn_out: Tensor) -> None:
        # The bias after LayerScale is what remains; it is the same for every image and position.
        remainder = attn_out - result.sum(2)
        constant = remainder[:1, :1].expand_as(remainder)
        _demand(
            bool((remainder - constant).abs().max() <= 1e-4 * attn_out.abs().max().clamp(min=1)),
            f"block {layer}: the heads' results and a constant do not sum to attn_out",
        )

    def training(self) -> None:
        hooked = self.hooked
        names = [
            name for name in hooked.hook_names if "resid" in name or name.endswith(("attn_out", "mlp_out"))
        ]
        hooked.train()
        try:
            with torch.no_grad(), torch.random.fork_rng():
                torch.manual_seed(0)
                wanted = self.native(self.images)
                torch.manual_seed(0)
                bare = hooked(self.images)
                torch.manual_seed(0)
                read, _ = hooked.run_with_cache(self.images, names_filter=names)
        finally:
            hooked.eval()
        _demand(torch.equal(bare, wanted), "in training mode the logits are not the native ones")
        _demand(torch.equal(read, wanted), "in training mode reading the residual stream changes the logits")

    def _near(self, got: Tensor, wanted: Tensor) -> bool:
        scale = wanted.abs().max().clamp(min=1e-6)
        return bool((got - wanted).abs().max() <= self.rtol * scale)


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FamilyError(
            f"The family does not open this model rightly: {otherwise}.",
            expected="a model that is the native one to the last bit, with every hook alive",
            remedy="Compare the family's steps with the module's own forward pass.",
        )
