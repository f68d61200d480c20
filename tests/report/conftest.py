"""Made comparisons, and a browser to look at their pages."""

import shutil

import plotly.graph_objects as go
import pytest

from vitlens import report

from .made import StandIn, made_comparison


@pytest.fixture(scope="session")
def comparison() -> StandIn:
    """The digits model's shape: 3 checkpoints, 6 conditions, 200 images, 6 layers, 4 heads."""
    return made_comparison()


@pytest.fixture(scope="session")
def figures(comparison) -> dict[str, go.Figure]:
    """The figures of the digits model's comparison."""
    return report.figures(comparison)


@pytest.fixture(scope="session")
def deit_comparison() -> StandIn:
    """DeiT-tiny's shape, 1,000 classes, with long names: 4 checkpoints under 10 conditions."""
    return made_comparison(
        (
            "deit_tiny_patch16_224.fb_in1k",
            "deit_tiny fine-tuned on gaussian_blur",
            "deit_tiny fine-tuned on gaussian_noise",
            "clean control, as many steps",
        ),
        (
            "clean",
            "gaussian_blur@3",
            "defocus_blur@3",
            "gaussian_noise@3",
            "impulse_noise@5",
            "contrast@5",
            "pixelate@4",
            "pgd:eps=4/255,steps=10",
            "pgd:eps=4/255,steps=10,on=deit_tiny_patch16_224.fb_in1k",
            "a_condition_of_my_own_with_a_rather_long_name",
        ),
        n_images=60,
        n_layers=12,
        n_heads=3,
        side=14,
        image_px=224,
        class_names=[f"American Staffordshire terrier {i}" for i in range(1000)],
        n_examples=3,
    )


@pytest.fixture(scope="module")
def browser():
    """Any Chromium of this machine, without a window."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium was found on the PATH")
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()
