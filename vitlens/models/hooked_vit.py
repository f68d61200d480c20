"""HookedViT: a live timm module seen through hooks, its output unchanged to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import HookError, PixelError, ShapeError
from .building import build_timm
from .config import ViTConfig
from .families import Entry, find_family
from .hook_point import HookPoint
from .observed import ObservedRootModule
from .opened import Opened, open_norm
from .weights import NamedWeights

_EMBEDDINGS = ("hook_embed", "hook_pos_embed")


class HookedViT(ObservedRootModule, NamedWeights):
    """A Vision Transformer with TransformerLens's hooks.

    It wraps the module that it is given, shares its parameters, copies nothing and adds no attribute to it.
    While nobody listens, calling it calls the module. A block in which somebody listens is run step by step
    with the module's own submodules in the module's own order, so that the logits stay equal to the last
    bit; only listening to `hook_attn_scores` or `hook_pattern` leaves the fused attention kernel.

    Args:
        model: a live timm module of a supported family.
        data_config: entries that replace those of timm's data config: `mean`, `std`, `input_size`,
            `interpolation`, `crop_pct`, `crop_mode`. A module built without a pretrained configuration has
            timm's defaults, ImageNet's mean and std.
        provenance: anything worth remembering about where the weights come from; JSON-able.

    Raises:
        FamilyError: the module is of no family that vitlens can open.

    Example:
        >>> import timm, torch
        >>> timm_model = timm.create_model("deit_tiny_patch16_224").eval()
        >>> model = HookedViT(timm_model)
        >>> images = torch.rand(2, 3, 224, 224)
        >>> with torch.no_grad():
        ...     logits, cache = model.run_with_cache(
        ...         model.normalize(images), names_filter="blocks.3.hook_resid_post"
        ...     )
        ...     torch.equal(logits, timm_model(model.normalize(images)))
        True
        >>> cache["blocks.3.hook_resid_post"].shape
        torch.Size([2, 197, 192])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        data_config: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.family = find_family(model)
        self.model = model
        self.cfg: ViTConfig = self.family.config(model)
        self.data_config: dict[str, Any] = {**resolve_model_data_config(model), **(data_config or {})}
        self.provenance: dict[str, Any] = dict(provenance or {})
        # How to build the module again, where it cannot be told from the module itself.
        self.description: dict[str, Any] | None = None
        self.training = model.training

        self.hook_embed = HookPoint()
        if self.family.has_positions(model):
            self.hook_pos_embed = HookPoint()
        if self.family.has_norm_pre(model):
            self.hook_embed_norm = HookPoint()
        self.blocks = nn.ModuleList(self.family.blocks(model))
        norm, self.norm_after_pool = self.family.final_norm(model)
        if norm is not None:
            self.ln_final = open_norm(norm)
        self.hook_pooled = HookPoint()
        self.setup()

    # ------------------------------------------------------------------ construction

    @classmethod
    def from_timm(cls, name: str, *, pretrained: bool = False, **kwargs: Any) -> HookedViT:
        """Build a timm model by name and wrap it.

        Args:
            name: what `timm.create_model` takes, a pretrained tag included.
            pretrained: fetch the weights that timm names for it.
            **kwargs: handed to `timm.create_model`, such as `num_classes` or `img_size`.

        Returns:
            The model, in the mode that timm makes it in: call `eval()` to evaluate.

        Raises:
            ArchitectureError: timm knows no such name.
            FamilyError: the model is of no family that vitlens can open.

        Example:
            >>> HookedViT.from_timm("vit_tiny_patch16_224", num_classes=10).cfg.n_classes
            10
        """
        return cls(
            build_timm(name, pretrained=pretrained, **kwargs),
            provenance={"timm": name, "pretrained": pretrained},
        )

    @classmethod
    def from_huggingface(cls, source: Any, *, revision: str | None = None, **kwargs: Any) -> HookedViT:
        """Carry a Hugging Face vision transformer over to the timm module of the same shape, and wrap it.

        Args:
            source: a hub id or a folder, which transformers loads, or a live module, which needs nothing
                besides. ViT, DeiT, BEiT, DINOv2, DINOv3, and the vision models of CLIP and SigLIP.
            revision: with a hub id, the branch, tag or commit.
            **kwargs: replace arguments of timm's class, such as `dynamic_img_size`.

        Returns:
            The model, in the mode of the live module; in evaluation mode if transformers loaded it.

        Raises:
            FamilyError: the model is of another type; the message lists those that can be carried over.
            CheckpointError: weights are missing or surplus.
            ArchitectureError: timm cannot represent a setting of the model.

        Example:
            >>> from transformers import ViTConfig, ViTForImageClassification
            >>> config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32)
            >>> HookedViT.from_huggingface(ViTForImageClassification(config)).cfg.n_layers
            2
        """
        from .huggingface import to_timm  # upward in this folder, and wanted by few

        carried = to_timm(source, revision=revision, **kwargs)
        model = cls(carried.module, data_config=carried.data_config, provenance=carried.provenance)
        model.description = {"kind": "huggingface", "name": "", "kwargs": dict(carried.description)}
        return model

    # ------------------------------------------------------------------ what it is

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = next(self.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' precision."""
        dtype: torch.dtype = next(self.parameters()).dtype
        return dtype

    def normalize(
        self, pixels: Float[Tensor, "*batch 3 height width"]
    ) -> Float[Tensor, "*batch 3 height width"]:
        """Pixels in [0, 1] to what the model was trained on: minus its mean, over its std, by channel.

        Args:
            pixels: in [0, 1].

        Returns:
            What `forward` takes, in the model's precision.

        Raises:
            PixelError: the pixels are no such tensor.
        """
        if not isinstance(pixels, Tensor) or not pixels.is_floating_point():
            given = pixels.dtype if isinstance(pixels, Tensor) else type(pixels).__name__
            raise PixelError(
                f"The pixels are a {given}.",
                expected="a tensor [..., 3, height, width] of floats in [0, 1]",
                remedy="Divide bytes by 255; vitlens.images.folder gives such tensors.",
            )
        mean, std = (
            torch.tensor(self.data_config[name], dtype=pixels.dtype, device=pixels.device).view(-1, 1, 1)
            for name in ("mean", "std")
        )
        return ((pixels - mean) / std).to(self.dtype)

    # ------------------------------------------------------------------ running

    def forward(
        self,
        images: Tensor,
        *,
        stop_at_layer: int | None = None,
        start_at_layer: int | None = None,
        resid: Tensor | None = None,
    ) -> Tensor:
        """Run the model on normalised images.

        Args:
            images: [batch channel height width], as the timm module takes them: normalised.
            stop_at_layer: run blocks 0 to `stop_at_layer - 1` only and return the residual stream there;
                negative values count from the end.
            start_at_layer: with `resid`, leave out the blocks before this one; `n_layers` leaves the head.
            resid: [batch pos d_model], what enters block `start_at_layer`. The images then only say what
                blocks get beside the stream, such as a rotary embedding.

        Returns:
            [batch n_classes] logits, the same numbers timm gives; or [batch pos d_model].

        Raises:
            HookError: a layer is out of range, or one of `start_at_layer` and `resid` is given alone.
            PixelError: the images have another number of axes or channels, or another size.
        """
        self._check_images(images)
        stop = self._n_blocks(stop_at_layer)
        is_whole = stop_at_layer is None and start_at_layer is None and resid is None
        if is_whole and not any(point.listens() for point in self.hook_dict.values()):
            native: Tensor = self.model(images)
            return native
        start, entry = self._entry(images, start_at_layer, resid)
        x = entry.resid
        recompute = getattr(self.model, "grad_checkpointing", False) and torch.is_grad_enabled()
        for layer in range(start, stop):
            block, context = self.blocks[layer], entry.context(layer)
            # timm trades memory for time the same way; hooks then fire twice, in the pass and in its repeat.
            x = checkpoint(block, x, use_reentrant=False, **context) if recompute else block(x, **context)
        return x if stop_at_layer is not None else self._head(x)

    def readout(self, resid: Float[Tensor, "batch pos d_model"]) -> Tensor:
        """What the head would say of the residual stream at any layer: the logit lens's one door.

        The model's own final norm (with the statistics of `resid` itself), pooling, norm after pooling and
        head, bias included. At the last layer it gives the logits.

        Args:
            resid: [batch pos d_model] at any place on the residual stream.

        Returns:
            [batch n_classes].

        Raises:
            ShapeError: `resid` has other axes.
        """
        if not isinstance(resid, Tensor) or resid.ndim != 3 or resid.shape[-1] != self.cfg.d_model:
            raise ShapeError(
                f"resid has shape {tuple(getattr(resid, 'shape', ())) or type(resid).__name__}.",
                expected=f"[batch, pos, d_model = {self.cfg.d_model}]",
                remedy="Give the residual stream with all its tokens, as cached at hook_resid_pre or _post.",
            )
        return self.family.readout(self.model, resid)

    # ------------------------------------------------------------------ steps

    def _entry(self, images: Tensor, start_at_layer: int | None, resid: Tensor | None) -> tuple[int, Entry]:
        """The first block to run, and what enters it."""
        if resid is None and start_at_layer is None:
            return 0, self._embed(images)
        if resid is None or start_at_layer is None:
            raise HookError(
                f"Only {'resid' if start_at_layer is None else 'start_at_layer'} is given.",
                expected="both start_at_layer and resid, or neither",
                remedy="Pass what enters the block: its hook_resid_pre, as it was cached.",
            )
        contexts = self.family.embed(self.model, images).contexts
        return self._n_blocks(start_at_layer, "start_at_layer"), Entry(resid, contexts)

    def _embed(self, images: Tensor) -> Entry:
        if any(self.hook_dict[name].listens() for name in _EMBEDDINGS if name in self.hook_dict):
            parts = self.family.embed_parts(self.model, images)
            embedded = self.hook_embed.fire(parts.tokens)
            if parts.positions is not None:
                embedded = embedded + self.hook_pos_embed.fire(parts.positions)
            entry = self.family.enter(self.model, embedded, parts.rest)
        else:
            entry = self.family.embed(self.model, images)
        if not hasattr(self, "hook_embed_norm"):
            return entry
        return Entry(self.hook_embed_norm.fire(entry.resid), entry.contexts)

    def _head(self, x: Tensor) -> Tensor:
        norm: Opened | None = getattr(self, "ln_final", None)
        if norm is not None and not self.norm_after_pool:
            x = norm(x)
        pooled = self.family.pool(self.model, x)
        if norm is not None and self.norm_after_pool:
            pooled = norm(pooled)
        return self.family.classify(self.model, self.hook_pooled.fire(pooled))

    def _n_blocks(self, layer: int | None, argument: str = "stop_at_layer") -> int:
        n_layers = self.cfg.n_layers
        if layer is None:
            return n_layers
        n_blocks = layer + n_layers if layer < 0 else layer
        if not 0 <= n_blocks <= n_layers:
            raise HookError(
                f"{argument} is {layer}.",
                expected=f"-{n_layers} to {n_layers}",
                remedy="0 stands before the first block, n_layers after the last.",
            )
        return n_blocks

    def _check_images(self, images: Tensor) -> None:
        size = self.cfg.required_image_size
        if not isinstance(images, Tensor) or not images.is_floating_point():
            found = f"of type {images.dtype}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
            raise PixelError(
                f"The images are {found}.",
                expected="a tensor of floating-point numbers [batch channel height width]",
                remedy="Normalize pixels in [0, 1] with model.normalize first.",
            )
        fits = images.ndim == 4 and images.shape[1] == self.cfg.n_channels
        if not fits or (size is not None and tuple(images.shape[2:]) != size):
            wanted = (self.cfg.n_channels, *(size or ("height", "width")))
            raise PixelError(
                f"The images have shape {tuple(images.shape)}.",
                expected=f"[batch, {', '.join(str(axis) for axis in wanted)}]",
                remedy="Add the batch axis, or resize and crop as model.data_config says.",
            )
