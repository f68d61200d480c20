"""Arguments of a wrong type, which the tests' own type checker would catch first: in a plain process."""

import subprocess
import sys

SLIPS = """
import numpy as np, timm, torch, xarray as xr
import vitlens as vl
from vitlens.errors import VitlensError
from vitlens.images import Attack, Corruption, FourierNoise, FourierWave

pixels, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, depth=1)
model = vl.HookedViT(vit)
rows = ((0.1,),) * 5
slips = {
    "parameters without rows": lambda: Corruption("mine", (0.1,) * 5, ("a",), "tone", abs),
    "parameters as text": lambda: Corruption("mine", "abcde", ("a",), "tone", abs),
    "names as text": lambda: Corruption("mine", rows, "a", "tone", abs),
    "a name that is none": lambda: Corruption(3, rows, ("a",), "tone", abs),
    "no operation": lambda: Corruption("mine", rows, ("a",), "tone", None),
    "severity 3.0": lambda: vl.corrupt(pixels, "contrast", 3.0),
    "quality 85.0": lambda: vl.corrupt(pixels, "contrast", jpeg_quality=85.0),
    "ids that are numbers": lambda: vl.corrupt(pixels, "fog", image_ids=[1, 2]),
    "ids that are a tensor": lambda: vl.corrupt(pixels, "fog", image_ids=labels),
    "seed 0.5": lambda: vl.corrupt(pixels, "fog", image_ids=["a", "b"], seed=0.5),
    "a timm model": lambda: vl.pgd(vit, pixels, labels),
    "an objective as text": lambda: vl.pgd(model, pixels, objective="blocks.0.hook_resid_post"),
    "an objective's class": lambda: vl.pgd(model, pixels, objective=vl.images.ActivationChange),
    "alpha as text": lambda: vl.pgd(model, pixels, labels, alpha_pixel="x"),
    "a list of norms": lambda: vl.pgd(model, pixels, labels, norm=["l2"]),
    "random_start as text": lambda: vl.pgd(model, pixels, labels, random_start="no"),
    "eps True": lambda: vl.fgsm(model, pixels, labels, eps_pixel=True),
    "a band of one number": lambda: FourierNoise(0.1),
    "a band of texts": lambda: FourierNoise(("0", "1/8")),
    "rms as text": lambda: FourierNoise((0.0, 0.1), "x"),
    "a norm as text": lambda: FourierWave((0.0, 0.25), "x"),
    "one side": lambda: vl.fourier_heat_map(model, [], l2_norm_pixel=1.0, image_size=32),
    "ranks alone": lambda: vl.mean_corruption_error(xr.DataArray([0.0], dims="image", name="rank")),
    "n_bins 1.5": lambda: vl.calibration_error(xr.Dataset(), n_bins=1.5),
    "a spread of 3.0": lambda: vl.images.spread([1, 2], 3.0),
    "n_side 3.0": lambda: vl.fourier_heat_map(model, [], l2_norm_pixel=1.0, n_side=3.0),
}
for name, slip in slips.items():
    try:
        slip()
        print(name, "passed")
    except VitlensError:
        pass
    except Exception as error:
        print(name, repr(error))
ids = np.array(["a", "b"])
plain = vl.corrupt(pixels, "gaussian_noise", 3, image_ids=["a", "b"], seed=4)
assert torch.equal(vl.corrupt(pixels, "gaussian_noise", np.int64(3), image_ids=ids, seed=np.int64(4)), plain)
assert vl.fgsm(model, pixels, labels, eps_pixel=np.float32(0.01)).shape == pixels.shape
spec = Corruption("mine", [[0.1]] * 5, ["factor"], "tone", abs)
assert hash(spec) == hash(Corruption("mine", rows, ("factor",), "tone", abs))
"""


def test_every_slip_is_answered_by_an_error_of_vitlens_and_numpys_numbers_are_numbers():
    code = "import warnings; warnings.simplefilter('ignore')\n" + SLIPS
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == ""
    assert result.returncode == 0, result.stderr
