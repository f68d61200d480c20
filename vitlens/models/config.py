"""What a Vision Transformer is made of: its sizes, tokens and pooling."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..errors import ArchitectureError


@dataclass(frozen=True)
class ViTConfig:
    """The shape of a wrapped model, read off the live module.

    Attributes:
        family: name of the family that opens the module.
        n_layers: number of blocks.
        n_heads: attention heads in a block.
        d_model: width of the residual stream.
        d_head: width of a head's queries, keys and values.
        d_mlp: width of the MLP's hidden layer (what `hook_post` has).
        n_classes: outputs of the classifier; 0 without one.
        image_size: (height, width) in pixels that the model was built for; None when it was built for none.
        any_image_size: whether it takes other sizes as well.
        patch_size: (height, width) of a patch in pixels.
        n_channels: channels of an image.
        prefix_kinds: the kind of each token before the patches, in order: `cls`, `distillation`, `register`.
        pool: how the head reads the residual stream: `token`, `avg`, `map`, ... (timm's `global_pool`).

    Example:
        >>> import timm, vitlens as vl
        >>> cfg = vl.HookedViT(timm.create_model("deit_tiny_patch16_224")).cfg
        >>> cfg.n_layers, cfg.n_heads, cfg.d_model, cfg.n_pos, cfg.prefix_kinds
        (12, 3, 192, 197, ('cls',))
    """

    family: str
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    n_classes: int
    image_size: tuple[int, int] | None
    any_image_size: bool
    patch_size: tuple[int, int]
    n_channels: int
    prefix_kinds: tuple[str, ...]
    pool: str

    @property
    def n_prefix_tokens(self) -> int:
        """Tokens before the patches."""
        return len(self.prefix_kinds)

    @property
    def has_classifier(self) -> bool:
        """Whether an image gets one answer among classes: there is a head, and tokens are pooled for it."""
        return self.n_classes > 0 and self.pool != "none"

    @property
    def required_image_size(self) -> tuple[int, int] | None:
        """The one (height, width) that the model takes; None when it takes any."""
        return None if self.any_image_size else self.image_size

    @property
    def grid_size(self) -> tuple[int, int] | None:
        """(rows, columns) of patches at `image_size`."""
        if self.image_size is None:
            return None
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def n_pos(self) -> int | None:
        """Tokens at `image_size`, prefix tokens included."""
        if self.grid_size is None:
            return None
        return self.n_prefix_tokens + self.grid_size[0] * self.grid_size[1]

    @property
    def query_kinds(self) -> tuple[str, ...]:
        """The kinds of token that this model has, prefix first, patches last."""
        return (*dict.fromkeys(self.prefix_kinds), "patch")

    def positions(self, kind: str) -> slice | list[int]:
        """Where the tokens of one kind stand on the `pos` axis.

        Args:
            kind: one of `query_kinds`, or `all`.

        Returns:
            What indexes the `pos` axis.

        Raises:
            ArchitectureError: the model has no such token.

        Example:
            >>> import timm, vitlens as vl
            >>> vl.HookedViT(timm.create_model("deit_tiny_patch16_224")).cfg.positions("patch")
            slice(1, None, None)
        """
        if kind == "all":
            return slice(None)
        if kind == "patch":
            return slice(self.n_prefix_tokens, None)
        found = [index for index, name in enumerate(self.prefix_kinds) if name == kind]
        if not found:
            raise ArchitectureError(
                f"This model has no '{kind}' token.",
                expected=f"one of {', '.join((*self.query_kinds, 'all'))}",
                remedy="Choose a kind of token that the model has.",
            )
        return found

    def differences(self, other: ViTConfig) -> dict[str, tuple[object, object]]:
        """The fields in which this configuration and `other` differ, with both values."""
        mine, theirs = asdict(self), asdict(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}
