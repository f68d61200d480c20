r"""An analysis of one's own in twenty lines: in the rows, in the summary with intervals, and in the report.

Without arguments, on scanned digits, with small models that it trains first, in seconds:

    python examples/write_an_analysis.py

With arguments, on anybody's:

    python examples/write_an_analysis.py --base base.safetensors --tuned tuned/model.safetensors \
        --data photographs/
"""

# %% [markdown]
# # Writing an analysis
#
# An analysis says which activations it wants, and turns one batch of them into a table with a row an image.
# Everything else comes from the library: the pass over the data, conditions, several checkpoints on the same
# pixels, intervals, figures, the report.
#
# The question here: do the patches of an image become alike along the residual stream? Many layers of
# attention tend to average tokens.

# %%
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from common import checkpoints, class_names, flags, images, read, show
from einops import rearrange

import vitlens as vl

parser = flags("write_an_analysis", __doc__)
parser.add_argument("--conditions", nargs="+", default=["clean", "gaussian_noise@4"])
options = read(parser)
models = checkpoints(options)
reference, model = next(iter(models.items()))
dataset = images(options, model)

# %% [markdown]
# ## The measurement
#
# First a function of tensors, that can be tried by hand. Then twenty lines: `hooks` names what is read, each
# with a reduction that is applied as the activation streams by, so that one number an image is held in place
# of all tokens; `__call__` puts the numbers into a table. `long_name`, `units` and `description` are what
# figures and report show.


# %%
def token_similarity(tokens):
    """Mean cosine between pairs of different tokens, [image token d_model] -> [image]."""
    n = tokens.shape[1]
    mean = F.normalize(tokens, dim=-1).mean(dim=1)
    # The mean over all pairs is the squared length of the mean; each token's cosine with itself is 1.
    return (n * mean.square().sum(-1) - 1) / (n - 1)


@dataclass(frozen=True)
class PatchSimilarity:
    """How alike the patches of an image are after each block."""

    def hooks(self, model):
        """Every block's output, reduced to one number an image."""
        patches = model.cfg.positions("patch")
        names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]
        return dict.fromkeys(names, lambda resid: token_similarity(resid[:, patches]))

    def __call__(self, model, cache, logits, batch):
        """The rows of one batch."""
        values = torch.stack([cache[name] for name in self.hooks(model)], dim=1)
        said = {
            "long_name": "Similarity of patches",
            "units": "cosine",
            "description": "Mean cosine between the residual streams of two patches of one image.",
        }
        return vl.table({"patch_similarity": (("layer",), values, said)}, layer=range(values.shape[1]))


tokens = torch.randn(2, 16, 64)
pairs = F.cosine_similarity(
    rearrange(tokens, "b t d -> b t 1 d"), rearrange(tokens, "b t d -> b 1 t d"), dim=-1
)
by_hand = (pairs.sum((1, 2)) - 16) / (16 * 15)
print(f"equals the mean over all pairs: {torch.allclose(token_similarity(tokens), by_hand, atol=1e-6)}")

# %% [markdown]
# ## In the rows

# %%
data = vl.run(models, dataset, [PatchSimilarity()], conditions=options.conditions)
print(dict(data["patch_similarity"].sizes))

# %% [markdown]
# ## In the summary and the report
#
# Handed to `compare`, it has paired intervals, tests corrected over its layers, and a figure, chosen by its
# axes. (What stands along `resid_layer`, as the lens does, has rows and a figure; the summary wants a value
# an image, or one for each `layer` and `head`.)

# %%
comparison = vl.compare(
    models,
    dataset,
    analyses=[vl.Prediction(), PatchSimilarity()],
    conditions=options.conditions,
    class_names=class_names(dataset),
)
summary = comparison.summary()
show(comparison.figures()["patch_similarity"], "patch_similarity", options)
print(f"report: {comparison.report(options.folder / 'report.html', summary=summary)}")
rows = summary[summary["metric"] == "patch_similarity"]
columns = [
    "condition",
    "layer",
    "checkpoint",
    "value_reference",
    "difference",
    "ci_low",
    "ci_high",
    "verdict",
]
print(rows[columns].round(3).to_string(index=False))

# %% [markdown]
# ## What was found

# %%
profile = data["patch_similarity"].sel(checkpoint=reference, condition=options.conditions[0]).mean("image")
print(
    f"In {reference}, under {options.conditions[0]}, two patches of an image have a mean cosine of "
    f"{float(profile[0]):.2f} after block 0 and of {float(profile[-1]):.2f} after the last; they are most "
    f"alike after block {profile.values.argmax()}."
)
for (condition, name), part in rows.groupby(["condition", "checkpoint"], sort=False):
    changed = part[part["verdict"] == "changed"]
    print(
        f"{condition}: {name} differs from {reference} after {len(changed)} of {len(part)} blocks, "
        f"by {part['difference'].abs().max():.3f} at most."
    )
