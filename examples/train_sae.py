r"""Train a sparse autoencoder on a ViT's activations, ask what it is worth, and look at its features.

Without arguments, on scanned digits, with small models that it trains first, in seconds:

    python examples/train_sae.py

With arguments, on anybody's:

    python examples/train_sae.py --base base.safetensors --data photographs/ --train more_photographs/ \
        --d-sae 1536 --k-per-token 16 --n-tokens 2500000
"""

# %% [markdown]
# # Training a sparse autoencoder
#
# A sparse autoencoder writes each token of the residual stream as a sum of a few directions out of many, its
# *features*. Whether these are the model's own is a question for measurements, which come before the
# pictures.

# %%
from common import checkpoint, class_names, flags, images, read, show

import vitlens as vl

parser = flags("train_sae", __doc__, checkpoints="one")
parser.add_argument("--train", metavar="FOLDER", help="images to train on (default: those of --data)")
parser.add_argument("--hook", help="where it reads (default: the output of the block at two thirds)")
parser.add_argument("--d-sae", type=int, default=128, help="features (default: %(default)s)")
parser.add_argument("--k-per-token", type=int, default=8, help="active features (default: %(default)s)")
parser.add_argument("--n-tokens", type=int, default=200_000, help="to train on (default: %(default)s)")
parser.add_argument("--sae-batch-size", type=int, default=1024, help="tokens a step (default: %(default)s)")
options = read(parser)
model = checkpoint(options)
dataset = images(options, model)
hook = options.hook or f"blocks.{2 * model.cfg.n_layers // 3}.hook_resid_post"
train = vl.images.folder(options.train or options.data, model) if options.data else vl.images.digits("train")

# %% [markdown]
# ## Training
#
# sae-lens's classes and losses, on the patch tokens of the images. In training a BatchTopK picks the largest
# codes of a whole batch; what comes back has a threshold instead, set on held-out tokens, so that its codes
# do not depend on the batch.

# %%
sae = vl.saes.train(
    (model, train, hook),
    kind="batch_topk",
    d_sae=options.d_sae,
    k_per_token=options.k_per_token,
    n_tokens=options.n_tokens,
    batch_size=options.sae_batch_size,
    seed=0,
)
vl.saes.save(sae, options.folder / "sae")
print(f"{sae.cfg.d_sae} features of {sae.cfg.d_in} dimensions at {hook}")

# %% [markdown]
# ## What it is worth
#
# L0: active features a token. FVU: the fraction of variance left unexplained. *Recovered*: with the
# reconstruction in the activation's place, how much of what is lost by zeroing those tokens comes back.

# %%
evaluation = vl.saes.evaluate(sae, model, dataset)
table = evaluation.summary()
shown = [
    "l0",
    "fvu",
    "n_dead",
    "accuracy_original",
    "accuracy_spliced",
    "accuracy_zeroed",
    "loss_nats_recovered",
]
columns = ["metric", "value", "ci_low", "ci_high"]
print(table.loc[table["metric"].isin(shown), columns].round(3).to_string(index=False))

# %% [markdown]
# ## Looking at features
#
# Images with the largest codes flatter a feature: beside them stand some from the middle of its range. The
# features shown are those that best tell a class, so they are not typical either.

# %%
gallery = vl.saes.gallery(
    sae, model, dataset, choose="class_lift", n_features=6, class_names=class_names(dataset), n_top_images=5
)
print(f"gallery: {gallery.report(options.folder / 'gallery.html')}")
for name, figure in list(gallery.figures().items())[:2]:
    show(figure, name, options)

# %% [markdown]
# ## What was found

# %%
value = table.drop_duplicates("metric").set_index("metric")["value"]
print(
    f"On {len(dataset)} images {value['l0']:.1f} features are active on a token; they leave "
    f"{100 * value['fvu']:.0f} % of the variance unexplained. Spliced in, they recover "
    f"{100 * value['loss_nats_recovered']:.0f} % of the loss. {value['n_dead']:.0f} of {sae.cfg.d_sae} are "
    "never active on these images."
)
for exhibit in gallery.exhibits[:3]:
    profile = exhibit.features[0]
    best = profile.classes.iloc[0]
    print(
        f"Feature {profile.feature} is active on {100 * profile.share_active:.1f} % of the tokens, and in "
        f"{best['n_active_images']:.0f} of the {best['n_images']:.0f} images of class "
        f"{gallery.class_name(int(best['label']))}: {best['lift']:.1f} times its share over all classes."
    )
