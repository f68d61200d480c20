r"""Did fine-tuning change the dictionary? Sparse autoencoders of two checkpoints, between their nulls.

Without arguments, on scanned digits, with small models that it trains first, in seconds:

    python examples/match_features.py

With arguments, on anybody's:

    python examples/match_features.py --architecture deit_tiny_patch16_224 \
        --base deit_tiny.safetensors --tuned tuned/model.safetensors \
        --train photographs/train others/ --data photographs/val --n-images 500 \
        --expansion 8 --k-per-token 32 --n-tokens 2500000 --output dictionaries/

It stores the activations of both checkpoints and of a model with random weights, trains SAEs of several seeds
on each, and writes tables (csv) and galleries (html). A call that was killed goes on where it stopped.
"""

# %% [markdown]
# # Matching features between its nulls
#
# Two checkpoints' features can be matched, and the cosine of matched decoders is some number. By itself it
# says nothing: two trainings on the *same* checkpoint that differ in their seed disagree as well, and
# features of a model with random weights agree a little by chance. The number belongs between these two.

# %%
import plotly.graph_objects as go
import xarray as xr
from common import checkpoints, class_names, flags, images, read, reinitialized, show
from scipy.stats import t
from torch.utils.data import ConcatDataset

import vitlens as vl

parser = flags("match_features", __doc__)
add = parser.add_argument
add("--train", nargs="+", metavar="FOLDER", help="images to train SAEs on (default: those of --data)")
add("--n-train-images", type=int, help="use so many images of each folder to train on (default: all)")
add("--hook", help="where SAEs read (default: the output of the block at three quarters)")
add("--conditions", nargs="+", default=["clean", "gaussian_blur@3"])
add("--n-seeds", type=int, default=3, help="SAEs for each model (default: %(default)s)")
add("--expansion", type=int, default=2, help="features per input axis (default: %(default)s)")
add("--k-per-token", type=int, default=8, help="active features (default: %(default)s)")
add("--n-tokens", type=int, default=60_000, help="to train each SAE on (default: %(default)s)")
add("--sae-batch-size", type=int, default=1024, help="tokens a step (default: %(default)s)")
add("--method", default="hungarian", choices=["mutual", "hungarian"])
add("--num-workers", type=int, default=0, help="processes that load images (default: %(default)s)")
add("--everything", action="store_true", help="also transfer, codes, effects of features and a crosscoder")
options = read(parser)
models = checkpoints(options)
(reference, base), (name, tuned), *_ = models.items()
pair = {reference: base, name: tuned}
# Not the last block: of what its patches say, a classifier that reads the class token hears nothing.
layer = min(3 * base.cfg.n_layers // 4, base.cfg.n_layers - 2)
hook = options.hook or f"blocks.{layer}.hook_resid_post"
test = images(options, base)
if options.data is None:
    train = vl.images.digits("train")
else:
    found = [vl.images.folder(folder, base) for folder in options.train or [options.data]]
    train = ConcatDataset([vl.images.spread(each, options.n_train_images or len(each)) for each in found])

# %% [markdown]
# ## Activations, stored in step
#
# Row t of the store is the same token of the same image in every model. The third model has the same
# architecture and random weights.

# %%
unrelated = "unrelated"
stored = {**pair, unrelated: reinitialized(base)}
settings = {"hook_names": [hook], "num_workers": options.num_workers}
tokens = vl.saes.ActivationStore.write(options.folder / "store", stored, train, dtype="float16", **settings)
held_out = vl.saes.ActivationStore.write(options.folder / "held_out", stored, test, **settings)
rows = {each: held_out.tokens(hook, checkpoint=each) for each in stored}

# %% [markdown]
# ## Several seeds of each
#
# No two SAEs share a seed, since SAEs that start alike look alike, and all are trained at the scale that was
# fitted on the reference.

# %%
saes = {each: [] for each in stored}
scale = None
for place, each in enumerate(stored):
    for seed in range(place * options.n_seeds, (place + 1) * options.n_seeds):
        sae = vl.saes.train(
            tokens.tokens(hook, checkpoint=each),
            d_sae=options.expansion * base.cfg.d_model,
            k_per_token=options.k_per_token,
            n_tokens=options.n_tokens,
            batch_size=options.sae_batch_size,
            activation_scale=scale,
            seed=seed,
            output=options.folder / "saes" / f"{each}-{seed}",
        )
        scale = scale or sae.cfg.metadata.activation_scale
        saes[each].append(sae)
firsts = {each: saes[each][0] for each in pair}

# %% [markdown]
# ## Between chance and a rerun
#
# Every SAE of one checkpoint is matched with every SAE of the other. The share is 0 where they are as alike
# as features of the random-weight model, 1 where they are as alike as two seeds of the reference; its
# interval is over seeds, because the features of one SAE are not independent draws.

# %%
similarity = vl.saes.similarity(
    {each: saes[each] for each in pair},
    unrelated=saes[unrelated],
    activations=rows,
    method=options.method,
)
similarity.table().to_csv(options.folder / "pairs_of_saes.csv", index=False)
summary = similarity.summary()
summary.to_csv(options.folder / "similarity.csv", index=False)
columns = ["statistic", "pair", "seed_to_seed", "unrelated", "similarity_share", "ci_low", "ci_high"]
print(summary[columns].round(3).to_string(index=False))

# %%
look = {"checkpoints": "two checkpoints", "seeds": f"two seeds of {reference}", "unrelated": "random weights"}
drawn = similarity.table()
drawn = drawn[(drawn["role"] != "seeds") | (drawn["checkpoint_a"] == reference)]
figure = go.Figure(
    [
        go.Box(y=part[similarity.primary], name=look[role], boxpoints="all", pointpos=0, jitter=0.4)
        for role, part in drawn.groupby("role")
    ],
    go.Layout(
        title="How alike are two SAEs? Mean cosine of matched decoders",
        yaxis={"title": "cosine", "rangemode": "tozero"},
        showlegend=False,
        height=400,
        template="plotly_white",
    ),
)
show(figure, "between_the_nulls", options)

# %% [markdown]
# ## Is either dictionary any good?
#
# A match of poor dictionaries is a poor match: what each explains, and what is lost when it is spliced in.

# %%
for each, sae in firsts.items():
    table = vl.saes.evaluate(sae, pair[each], test, conditions=options.conditions).summary()
    table.to_csv(options.folder / f"evaluation_{each}.csv", index=False)
    shown = table[table["metric"].isin(["l0", "fvu", "n_dead", "accuracy_original", "accuracy_spliced"])]
    shown = shown[["metric", "condition", "value", "ci_low", "ci_high"]]
    print(f"{each}\n{shown.round(3).to_string(index=False)}")

# %% [markdown]
# ## The pairs to look at
#
# Drawn from all over the match, neither the best nor the worst; each side on the same images.

# %%
match = vl.saes.match(firsts[reference], firsts[name], (rows[reference], rows[name]), method=options.method)
drawn_pairs = match.pairs.sample(min(6, len(match.pairs)), random_state=0)
gallery = vl.saes.pair_gallery(
    firsts, pair, test, pairs=drawn_pairs, class_names=class_names(test), n_top_images=4, n_middle_images=2
)
print(f"gallery: {gallery.report(options.folder / 'gallery_pairs.html')}")
first_pair, figure = next(iter(gallery.figures().items()))
show(figure, first_pair, options)

# %% [markdown]
# ## Everything else that can be asked
#
# With `--everything`: each dictionary on the other checkpoint's activations, codes of the same image in
# both, what lost and new features do to the correct class, and one dictionary over both checkpoints.

# %%
if options.everything:
    settings = {"conditions": options.conditions}
    vl.saes.transfer(pair, firsts, test, **settings).to_csv(options.folder / "transfer.csv", index=False)
    codes = vl.saes.code_similarity(pair, firsts, test, matches=match, **settings)
    n = codes.notnull().sum("image")
    half_width = codes.std("image", ddof=1) / n**0.5 * xr.apply_ufunc(t.ppf, 0.975, n - 1)
    half_width = half_width.rename({each: f"{each}_half_width" for each in half_width})
    table = xr.merge([codes.mean("image"), half_width]).to_dataframe()
    table.to_csv(options.folder / "code_similarity.csv")
    # Hungarian leaves hardly a feature without a partner, however unlike: what is lost or new, mutual says.
    mutual = vl.saes.match(firsts[reference], firsts[name], (rows[reference], rows[name]), method="mutual")
    effects = vl.saes.feature_effects(
        pair, firsts, mutual, vl.images.spread(test, 200), output=options.folder / "effects", **settings
    )
    effects.table.to_csv(options.folder / "feature_effects.csv", index=False)
    joint = vl.saes.train_crosscoder(
        {each: tokens.tokens(hook, checkpoint=each) for each in pair},
        d_sae=firsts[reference].cfg.d_sae,
        k_per_token=options.k_per_token,
        n_tokens=options.n_tokens,
        output=options.folder / "crosscoder",
    )
    joint.table().to_csv(options.folder / "crosscoder.csv", index=False)
    print(joint.summary().round(3).to_string())

# %% [markdown]
# ## What was found

# %%
row = summary.iloc[0]
print(
    f"Matched features of {reference} and {name} have a mean cosine of {row['pair']:.2f}; two seeds of "
    f"{reference} have {row['seed_to_seed']:.2f}, and random weights {row['unrelated']:.2f}. So the pair "
    f"stands at {row['similarity_share']:.2f} of the way from chance to a rerun "
    f"(95 % interval {row['ci_low']:.2f} to {row['ci_high']:.2f}, over seeds)."
)
if row["reason"]:
    print(f"There is {row['reason']}.")
elif row["ci_high"] < 1:
    print(f"The dictionaries of {reference} and {name} are less alike than two seeds of one.")
else:
    print("That the dictionaries differ by more than their seeds is not shown.")
