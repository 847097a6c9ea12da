"""ClippedOptimizer is a torch optimizer: with schedulers, closures, a gradient scaler, and as saved."""

from __future__ import annotations

import pytest
import torch

import clipbench
from clipbench.adapters import ClippedOptimizer
from clipbench.errors import ClipbenchError
from tests.adapters.plain_loop import ARMS, batches, loss_of, model_of, optimizer_of, plain_loop, steps_of, weights_of


@pytest.mark.parametrize("arm", [*ARMS, "max_norm@0.5", "norm(after=momentum)@0.1"])
@pytest.mark.parametrize("with_closure", [False, True])
def test_it_takes_the_steps_of_a_plain_loop(arm, with_closure):
    model = model_of()
    optimizer = ClippedOptimizer(optimizer_of(model), model, arm)
    for batch in batches():

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        if with_closure:
            assert float(optimizer.step(closure).detach()) > 0
        else:
            closure()
            optimizer.step()
        assert float(optimizer.info.norm) > 0
    weights, plain = plain_loop(arm)
    assert torch.equal(weights_of(model), weights)
    assert steps_of(optimizer) == steps_of(plain)


def test_a_scheduler_changes_the_learning_rate_of_the_optimizer_within():
    model, plain = model_of(), model_of()
    optimizer, other = ClippedOptimizer(optimizer_of(model), model, "norm(schedule=follow_lr)@0.5"), optimizer_of(plain)
    clipper = clipbench.Clipper(plain, "norm@0.5")
    schedulers = [torch.optim.lr_scheduler.StepLR(each, 2, gamma=0.5) for each in (optimizer, other)]
    for number, batch in enumerate(batches()):
        for each in (model, plain):
            each.zero_grad()
            loss_of(each, batch).backward()
        optimizer.step()
        factor = 0.5 ** (number // 2)
        clipper = clipbench.Clipper(plain, "norm", threshold=0.5 * factor)
        clipper.step(other)
        for scheduler in schedulers:
            scheduler.step()
        assert optimizer.optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"]
    torch.testing.assert_close(weights_of(model), weights_of(plain))


def test_an_optimizer_that_calls_its_closure_often_gets_clipped_gradients():
    model = model_of()
    optimizer = ClippedOptimizer(torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3), model, "norm@0.5")
    infos = []

    def closure():
        infos.append(optimizer.info)  # of the call before
        optimizer.zero_grad()
        loss = loss_of(model, batches()[0])
        loss.backward()
        return loss

    optimizer.step(closure)
    assert len(infos) > 2 and all(bool(info.fired) for info in infos[1:])


def test_a_gradient_scaler_divides_the_gradients_before_they_are_clipped():
    model = model_of()
    optimizer = ClippedOptimizer(optimizer_of(model), model, "norm@0.5")
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for batch in batches():
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batch)).backward()
        scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(weights_of(model), plain_loop("norm@0.5")[0])


def test_saved_and_loaded_it_goes_on_where_it_was(tmp_path):
    models = [model_of(), model_of()]
    whole, first = (ClippedOptimizer(optimizer_of(model), model, "zclip(warmup=2)@0.5") for model in models)
    for number, batch in enumerate(batches()):
        if number == 3:
            torch.save(first.state_dict(), tmp_path / "optimizer.pt")
            first = ClippedOptimizer(optimizer_of(models[1]), models[1], "zclip(warmup=2)@0.5")
            first.load_state_dict(torch.load(tmp_path / "optimizer.pt"))
        for model, optimizer in zip(models, (whole, first), strict=True):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
    assert torch.equal(*map(weights_of, models))
    first.load_state_dict(whole.optimizer.state_dict())  # of an optimizer alone


def test_it_shows_both_and_refuses_groups_that_the_clipper_does_not_know():
    model = model_of()
    optimizer = ClippedOptimizer(optimizer_of(model), model, "norm@0.5")
    assert repr(optimizer).startswith("ClippedOptimizer(norm@0.5)\nAdam (")
    with pytest.raises(ClipbenchError, match="Add the group to the optimizer"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
