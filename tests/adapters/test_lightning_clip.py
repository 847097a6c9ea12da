"""The callback of Lightning gives the weights of a plain loop."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

pl = pytest.importorskip("lightning.pytorch")

from clipbench.adapters import LightningClip  # noqa: E402
from clipbench.errors import ClipbenchError  # noqa: E402
from tests.adapters.plain_loop import (  # noqa: E402
    ARMS,
    BATCH,
    examples,
    loss_of,
    model_of,
    optimizer_of,
    plain_loop,
    steps_of,
    weights_of,
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore")  # the library has warnings of its own


class Regression(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = model_of()

    def training_step(self, batch, _):
        return loss_of(self.net, batch)

    def configure_optimizers(self):
        return optimizer_of(self)


def fit(folder, callback, checkpoint=None, **options):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    options = {"max_epochs": 1, "enable_checkpointing": False} | options
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, callbacks=[callback], logger=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    module = Regression()
    trainer.fit(module, DataLoader(TensorDataset(*examples()), batch_size=BATCH), ckpt_path=checkpoint)
    return trainer, module


@pytest.mark.parametrize("arm", ARMS)
def test_a_trainer_takes_the_steps_of_a_plain_loop(arm, tmp_path):
    trainer, module = fit(tmp_path, LightningClip(arm))
    weights, plain = plain_loop(arm)
    torch.testing.assert_close(weights_of(module), weights)
    assert steps_of(trainer.optimizers[0]) == steps_of(plain)


def test_gradients_are_accumulated_before_they_are_clipped(tmp_path):
    _, module = fit(tmp_path, LightningClip("norm@0.5"), accumulate_grad_batches=2)
    torch.testing.assert_close(weights_of(module), plain_loop("norm@0.5", accumulate=2)[0])


@pytest.mark.parametrize("arm", ["norm@0.5", "skip@4.0"])
def test_scaled_gradients_are_divided_by_the_scale_first(arm, tmp_path):
    """The hooks of mixed precision, in float32, so that a plain loop has the same numbers."""
    from lightning.pytorch.plugins.precision import MixedPrecision

    class Scaled(MixedPrecision):
        def forward_context(self):
            return torch.autocast("cpu", enabled=False)

    plugin = Scaled("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=256.0))
    trainer, module = fit(tmp_path, LightningClip(arm), plugins=[plugin])
    weights, plain = plain_loop(arm)
    torch.testing.assert_close(weights_of(module), weights)
    assert steps_of(trainer.optimizers[0]) == steps_of(plain)


def test_a_training_goes_on_from_a_checkpoint_with_what_the_rule_remembers(tmp_path):
    arm = "zclip(warmup=2)@0.5"
    trainer, _ = fit(tmp_path, LightningClip(arm), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    whole = fit(tmp_path, LightningClip(arm), max_epochs=2)[1]
    resumed = fit(tmp_path, LightningClip(arm), max_epochs=2, checkpoint=tmp_path / "one.ckpt")[1]
    assert torch.equal(weights_of(resumed), weights_of(whole))


def test_clipping_twice_is_refused(tmp_path):
    with pytest.raises(ClipbenchError, match=r"gradient_clip_val is 1\. Leave it out"):
        fit(tmp_path, LightningClip("norm@0.5"), gradient_clip_val=1.0)


def test_a_rule_that_acts_after_the_step_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ClipbenchError, match=r"acts after the optimizer's step.*ClippedOptimizer"):
        fit(tmp_path, LightningClip("max_norm@1.0"))
