r"""An Eva, a DINO without a classifier, and a Hugging Face checkpoint: other architectures, the same calls.

Without arguments, with tiny models of random weights, made on the spot:

    python examples/eva_and_huggingface.py

With arguments, on anybody's:

    python examples/eva_and_huggingface.py --pretrained \
        --timm eva02_tiny_patch14_224 vit_small_patch14_dinov2 \
        --huggingface google/vit-base-patch16-224 --data photographs/
"""

# %% [markdown]
# # Eva, DINO and Hugging Face
#
# A family is told by the class of the module, never by a model's name. timm's `VisionTransformer`, `Eva` and
# `Beit` are opened as they are; Hugging Face's ViT, DeiT, BEiT, DINOv2, DINOv3 and the vision models of CLIP
# and SigLIP are carried over to the timm module of the same shape.

# %%
import math

import plotly.graph_objects as go
import timm
import torch
from common import flags, images, read, show

import vitlens as vl

parser = flags("eva_and_huggingface", __doc__, n_images=32, checkpoints="none")
parser.add_argument("--timm", nargs="+", default=[], metavar="NAME", help="timm's names of models")
parser.add_argument("--pretrained", action="store_true", help="fetch the weights of these")
parser.add_argument("--huggingface", nargs="+", default=[], metavar="SOURCE", help="hub ids, or folders")
options = read(parser)
made_here = not (options.timm or options.huggingface)
if bool(options.data) == made_here:
    parser.error("--data and models (--timm, --huggingface) want each other")
models = {name: vl.HookedViT.from_timm(name, pretrained=options.pretrained) for name in options.timm}

# %% [markdown]
# ## From timm
#
# An Eva has rotary positions and a gated MLP, a DINO register tokens, LayerScale, and no classifier. Random
# weights are drawn anew by `randomize`, so that no part is silent, as a fresh LayerScale or bias would be.

# %%
if made_here:
    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4}
    eva = timm.models.eva.Eva(**shape, swiglu_mlp=True, use_rot_pos_emb=True, num_classes=10)
    dino = timm.models.VisionTransformer(**shape, reg_tokens=4, init_values=1e-5, num_classes=0)
    models = {"eva": vl.HookedViT(eva.eval()), "dino": vl.HookedViT(dino.eval())}
    # A model that is small enough can be put through everything that vitlens promises of a family.
    for name, model in models.items():
        print(f"{name}: {len(vl.testing.check_family(vl.testing.randomize(model.model)))} hooks checked")

# %% [markdown]
# ## From Hugging Face
#
# A hub id, a folder, or a live module. Weights are renamed and joined, never changed, so that the logits
# agree with transformers' own to rounding.

# %%
if made_here:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(1)
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        num_labels=10,
    )
    theirs = ViTForImageClassification(config).eval()
    theirs.save_pretrained(options.folder / "vit")
    options.huggingface = [str(options.folder / "vit")]
    carried = vl.HookedViT.from_huggingface(options.huggingface[0])
    with torch.inference_mode():
        pixels = torch.randn(2, 3, 32, 32)
        apart = (carried(pixels) - theirs(pixels).logits).abs().max()
    print(f"largest difference from transformers' own logits: {apart:.1e}")
for source in options.huggingface:
    models[source.rstrip("/").rsplit("/", 1)[-1]] = vl.HookedViT.from_huggingface(source)

# %% [markdown]
# ## What each has
#
# A hook is listed only where the architecture has the thing: `hook_rot_q` where positions are rotary,
# `hook_pre_linear` where the MLP is gated.

# %%
for name, model in models.items():
    cfg, hooks = model.cfg, model.hook_names
    last = cfg.n_layers - 1
    special = [
        each for each in ("attn.hook_rot_q", "mlp.hook_pre_linear") if f"blocks.{last}.{each}" in hooks
    ]
    print(
        f"{name} ({type(model.model).__name__}): {cfg.n_layers} blocks, {cfg.n_heads} heads, prefix "
        f"{', '.join(cfg.prefix_kinds) or 'none'}, pooling '{cfg.pool}', {cfg.n_classes or 'no'} classes; "
        f"{len(hooks)} hooks{', with ' + ' and '.join(special) if special else ''}"
    )

# %% [markdown]
# ## The same measurement on all
#
# What a model lacks is left out of its table: `query_kind` lists registers only where there are some. Models
# of different architectures share no axis of layers, so each has a table of its own.

# %%
entropies = {}
for name, model in models.items():
    data = vl.run(model, images(options, model), [vl.AttentionEntropy(), vl.AttentionShare()])
    entropies[name] = data["attention_entropy_nats"].mean(("image", "head"))
    if "attention_to_registers_share" in data:
        share = data["attention_to_registers_share"].mean(("image", "head"))
        print(
            f"{name}: share of attention that falls on registers, by layer:", share.values.round(3).squeeze()
        )

figure = go.Figure(
    [
        go.Scatter(x=values["layer"], y=values.sel(query_kind=kind).squeeze(), name=f"{name}, {kind} queries")
        for name, values in entropies.items()
        for kind in values["query_kind"].values
    ],
    go.Layout(
        title="Attention entropy by layer",
        xaxis={"title": "layer", "dtick": 1},
        yaxis={"title": "nats"},
        height=380,
        template="plotly_white",
    ),
)
show(figure, "entropy", options)

# %% [markdown]
# ## No classifier, no accuracy
#
# What needs classes refuses a model without them, before the run, and says why. Nothing else does.

# %%
refused = []
for name, model in models.items():
    if not model.cfg.has_classifier:
        try:
            vl.run(model, images(options, model), [vl.Prediction()])
        except vl.errors.VitlensError as error:
            refused.append(name)
            print(f"{type(error).__name__}: {error}")

# %% [markdown]
# ## What was found

# %%
for name, values in entropies.items():
    n_tokens = models[name].cfg.n_pos
    most = f" of {math.log(n_tokens):.2f} at most" if n_tokens else ""
    print(f"{name}: heads of the last layer have {float(values.isel(layer=-1).mean()):.2f} nats{most}.")
print(f"{len(models)} models opened; without a classifier: {', '.join(refused) or 'none'}.")
