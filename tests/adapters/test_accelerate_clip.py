"""AccelerateClip in the place of `accelerator.clip_grad_norm_` gives the weights of a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

accelerate = pytest.importorskip("accelerate")

from clipbench.adapters import AccelerateClip  # noqa: E402
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


def train(arm, accumulate=1):
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = model_of()
    loader = DataLoader(TensorDataset(*examples()), batch_size=BATCH)
    model, optimizer, loader = accelerator.prepare(model, optimizer_of(model), loader)
    clip, infos = AccelerateClip(accelerator, model, arm), []
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model, batch))
            infos.append(clip(optimizer))
            optimizer.step()
            optimizer.zero_grad()
    return model, optimizer.optimizer, infos, accelerator


@pytest.mark.parametrize("arm", ARMS)
def test_it_takes_the_steps_of_a_plain_loop(arm):
    model, optimizer, infos, _ = train(arm)
    weights, plain = plain_loop(arm)
    torch.testing.assert_close(weights_of(model), weights)
    assert steps_of(optimizer) == steps_of(plain) and len(infos) == 6


def test_nothing_is_clipped_while_gradients_are_accumulated():
    model, _, infos, _ = train("norm@0.5", accumulate=2)
    assert [info is None for info in infos] == [True, False] * 3
    torch.testing.assert_close(weights_of(model), plain_loop("norm@0.5", accumulate=2)[0])


def test_what_the_rule_remembers_is_saved_with_the_accelerators_state(tmp_path):
    *_, accelerator = train("zclip(warmup=2)@0.5")
    accelerator.save_state(str(tmp_path))
    saved = torch.load(tmp_path / "custom_checkpoint_0.pkl")
    assert saved["rule"] == "zclip" and saved["step"] == 6


def test_a_rule_that_acts_after_the_step_is_refused_with_the_way_out():
    with pytest.raises(ClipbenchError, match=r"acts after the optimizer's step.*ClippedOptimizer"):
        AccelerateClip(accelerate.Accelerator(cpu=True), model_of(), "max_norm@1.0")
