"""The `clip` object in loops of all kinds, beside the same loop without it."""

import os
import sys

import numpy as np
import pytest
import torch
from torch import nn

from clipbench.engine.step import COSINE, FIRED, FRACTION, LOSS, MAX, POST, PRE
from clipbench.scripts.attached_pair import ScriptError
from clipbench.scripts.saved_state import SavedState
from clipbench.scripts.script_clip import Diverged
from clipbench.scripts.script_records import records_of
from clipbench.scripts.standalone import clip_from_args
from tests.scripts.helpers import clip_of

THRESHOLD = 0.3


def small(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), torch.randn(40, 4)


def loss_of(model, x):
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trained_by_hand(clip_gradient, steps=8):
    model, optimizer, x = small()
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, x[step * 5 : step * 5 + 5])
        loss.backward()
        clip_gradient(model)
        optimizer.step()
        losses.append(loss.item())
    return losses, weights(model)


def by_norm(model):
    torch.nn.utils.clip_grad_norm_(model.parameters(), THRESHOLD)


def trained(clip, step, steps=8):
    model, optimizer, x = small()
    clip.attach(model, optimizer)
    for number in range(steps):
        loss = loss_of(model, x[number * 5 : number * 5 + 5])
        loss.backward()
        step(clip, loss, optimizer)
    return clip.log.rows()[:, LOSS], weights(model)


def in_one(clip, loss, optimizer):
    clip.step(loss)


def in_three(clip, loss, optimizer):
    clip.unscale()
    clip.apply()
    clip.commit(loss)


def with_its_own_step(clip, loss, optimizer):
    clip.apply()
    optimizer.step()
    clip.commit(loss)


@pytest.mark.parametrize("step", [in_one, in_three, with_its_own_step])
@pytest.mark.parametrize(("rule", "by_hand"), [("none", lambda model: None), (f"norm@{THRESHOLD}", by_norm)])
def test_a_step_and_its_parts_train_as_a_plain_loop(step, rule, by_hand):
    losses, end = trained(clip_of(rule), step)
    expected, expected_end = trained_by_hand(by_hand)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    torch.testing.assert_close(end, expected_end, rtol=1e-6, atol=1e-7)


def test_what_a_step_records_are_the_measures_of_the_gradient():
    clip = clip_of(f"norm@{THRESHOLD}")
    model, optimizer, x = small()
    clip.attach(model, optimizer)
    loss = loss_of(model, x)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    clip.step(loss)
    row = clip.log.rows()[0]
    norm = float(gradient.norm())
    assert row[[LOSS, PRE, MAX]] == pytest.approx([loss.item(), norm, float(gradient.abs().max())], rel=1e-5)
    assert row[[POST, FIRED, FRACTION, COSINE]] == pytest.approx([min(norm, THRESHOLD), 1, 1, 1], rel=1e-5)


def test_gradients_add_up_until_a_step():
    clip, (model, optimizer, x) = clip_of("norm@0.3"), small()
    clip.attach(model, optimizer)
    for part in x.split(10):
        (loss_of(model, part) / 4).backward()
    clip.step(loss_of(model, x).detach())
    other, its_optimizer, x = small()
    loss_of(other, x).backward()
    by_norm(other)
    its_optimizer.step()
    torch.testing.assert_close(weights(model), weights(other))
    assert len(clip.log) == 1


def test_two_models_have_rules_of_their_own_and_rows_by_name():
    clip = clip_of("autoclip@50")
    pairs = {"critic": small(1), "actor": small(2)}
    for name, (model, optimizer, _) in pairs.items():
        clip.attach(model, optimizer, name=name)
    for _ in range(3):
        for name, (model, _, x) in pairs.items():
            loss = loss_of(model, x) * (10 if name == "critic" else 1)
            loss.backward()
            clip.step(loss, name=name)
    alone = clip_of("autoclip@50")
    model, optimizer, x = small(2)
    alone.attach(model, optimizer)
    for _ in range(3):
        loss = loss_of(model, x)
        loss.backward()
        alone.step(loss)
    torch.testing.assert_close(weights(pairs["actor"][0]), weights(model))
    records = records_of(clip, {"test/loss": 1.0})
    assert list(records.steps["model_name"]) == ["critic", "actor"] * 3
    critics = records.steps["train/loss"][::2]
    assert records.records["train/loss_tail"][0] == pytest.approx(critics[len(critics) // 2 :].mean())
    with pytest.raises(ScriptError, match=r"several models are attached. Say which"):
        clip.step(loss)
    with pytest.raises(ScriptError, match=r"no model 'critc' is attached. Attached: 'critic', 'actor'"):
        clip.step(loss, name="critc")


def test_a_scaler_leaves_out_steps_that_overflow_and_that_is_no_divergence():
    clip, (model, optimizer, x) = clip_of("norm@0.3"), small()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    clip.attach(model, optimizer, scaler)
    before = weights(model)
    scaler.scale(1e6 * loss_of(model, x)).backward()
    clip.step(1.0)
    assert torch.equal(weights(model), before)
    assert scaler.get_scale() == 2.0**126, "it was updated"
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    clip, (model, optimizer, x) = clip_of("norm@0.3"), small()
    clip.attach(model, optimizer, scaler)
    for number in range(8):
        loss = loss_of(model, x[number * 5 : number * 5 + 5])
        scaler.scale(loss).backward()
        clip.step(loss)
    np.testing.assert_allclose(clip.log.rows()[:, LOSS], trained_by_hand(by_norm)[0], rtol=1e-5)


def test_models_that_share_a_scaler_leave_its_update_to_the_script():
    clip, scaler = clip_of("none"), torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
    pairs = [small(1), small(2)]
    for number, (model, optimizer, _) in enumerate(pairs):
        clip.attach(model, optimizer, scaler, name=str(number))
    for number, (model, _, x) in enumerate(pairs):
        loss = loss_of(model, x)
        scaler.scale(loss).backward()
        clip.step(loss, name=str(number))
    assert scaler.get_scale() == 4.0
    scaler.update()
    assert scaler.get_scale() == 8.0


@pytest.mark.parametrize("rule", ["skip@0.01", "max_norm@0.5"])
def test_rules_that_decide_about_the_step_take_it_themselves(rule):
    clip, (model, optimizer, x) = clip_of(rule), small()
    clip.attach(model, optimizer)
    before = weights(model)
    loss = loss_of(model, x)
    loss.backward()
    clip.step(loss)
    assert clip.log.rows()[0, FIRED] == 1
    if rule.startswith("skip"):
        assert torch.equal(weights(model), before)
        assert not optimizer.state
    loss = loss_of(model, x)
    loss.backward()
    clip.apply()
    with pytest.raises(ScriptError, match=r"remove optimizer.step()"):
        optimizer.step()


def test_what_is_forgotten_or_done_twice_is_said():
    clip, (model, optimizer, x) = clip_of(), small()
    with pytest.raises(ScriptError, match="no model is attached"):
        clip.step(torch.tensor(1.0))
    clip.attach(model, optimizer)
    with pytest.raises(ScriptError, match="a model is attached already"):
        clip.attach(model, optimizer)
    loss = loss_of(model, x)
    loss.backward()
    clip.apply()
    with pytest.raises(ScriptError, match="clipped twice"):
        clip.apply()
    clip.commit(loss)
    with pytest.raises(ScriptError, match=r"before clip.apply"):
        clip.commit(loss)
    with pytest.raises(ScriptError, match="twice with the same loss"):
        clip.step(loss)


@pytest.mark.parametrize("function", ["clip_grad_norm_", "clip_grad_value_"])
def test_a_script_that_also_clips_by_torch_is_told(function):
    clip, (model, optimizer, x) = clip_of(), small()
    other = small(1)[0]
    clip.attach(model, optimizer)
    for each in (model, other):
        loss_of(each, x).backward()
    clip_by_torch = getattr(torch.nn.utils, function)
    clip_by_torch(other.parameters(), 0.1)
    clip_by_torch(model.parameters(), float("inf"))  # measures
    with pytest.raises(
        ScriptError, match=rf"torch.nn.utils.{function} clips the gradient too, in every arm. Remove it"
    ):
        clip_by_torch(model.parameters(), 0.1)


# Divergence


@pytest.mark.parametrize(("where", "cause"), [("loss", "loss"), ("gradient", "gradient"), ("weights", "weights")])
def test_a_trial_ends_at_the_step_at_which_it_diverges(where, cause):
    clip, (model, optimizer, x) = clip_of("norm@1.0"), small()
    clip.attach(model, optimizer)
    with pytest.raises(Diverged):
        for number in range(6):
            loss = loss_of(model, x)
            loss.backward()
            if number == 2 and where == "gradient":
                model[0].weight.grad[0, 0] = torch.nan
            if number == 2 and where == "loss":
                loss = loss * torch.inf
            clip.step(loss)
            if number == 2 and where == "weights":
                with torch.no_grad():
                    model[0].weight[0, 0] = torch.nan
    row = records_of(clip, {}).records
    assert (row["status"][0], row["diverged_step"][0], row["diverged_cause"][0]) == ("diverged", 3, cause)
    assert "test/loss" not in row


def test_weights_that_break_at_the_last_step_are_seen():
    clip, (model, optimizer, x) = clip_of(), small()
    clip.attach(model, optimizer)
    loss = loss_of(model, x)
    loss.backward()
    clip.step(loss)
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    with pytest.raises(Diverged):
        clip.finish()


def test_a_rule_that_refuses_a_broken_gradient_survives_it():
    clip, (model, optimizer, x) = clip_of("skip@100.0"), small()
    clip.attach(model, optimizer)
    for number in range(3):
        loss = loss_of(model, x)
        loss.backward()
        if number == 1:
            model[0].weight.grad.fill_(torch.inf)
        clip.step(loss)
    clip.finish()
    assert clip.diverged_step == 0


def test_a_loss_above_the_limit_is_a_divergence():
    clip, (model, optimizer, x) = clip_of(script={"diverge_above": 0.5}), small()
    clip.attach(model, optimizer)
    loss = loss_of(model, x)
    loss.backward()
    with pytest.raises(Diverged):
        clip.step(loss + 100)
    assert clip.log.status.causes == ["loss above 0.5"]


# Saved states


def test_a_saved_state_brings_back_generators_rows_and_memory(tmp_path):
    path = tmp_path / "state.pt"
    clip, (model, optimizer, x) = clip_of("autoclip@50", saved=SavedState(path)), small()
    clip.seed_all()
    clip.attach(model, optimizer)
    assert clip.resume() is None
    loss = loss_of(model, x)
    loss.backward()
    clip.step(loss)
    clip.report({"val/loss": 1.0})
    clip.save({"step": 1, "model": model.state_dict()})
    expected = torch.rand(3), np.random.rand(3)
    other, (copy, its_optimizer, _) = clip_of("autoclip@50", saved=SavedState(path)), small(9)
    other.attach(copy, its_optimizer)
    state = other.resume()
    copy.load_state_dict(state["model"])
    assert state["step"] == 1
    torch.testing.assert_close(torch.rand(3), expected[0])
    np.testing.assert_allclose(np.random.rand(3), expected[1])
    np.testing.assert_array_equal(other.log.rows(), clip.log.rows())
    assert other.reports == [{"val/loss": 1.0}]
    assert other.initial_weights == clip.initial_weights, "not those of the copy"
    memory = [each.pairs[""].clipper.state_dict()["memory"]["norms"] for each in (clip, other)]
    torch.testing.assert_close(*memory)


def test_what_could_run_code_is_not_saved(tmp_path):
    clip = clip_of(saved=SavedState(tmp_path / "state.pt"))
    with pytest.raises(ScriptError, match=r"cannot keep state\['model'\], a Linear"):
        clip.save({"model": nn.Linear(1, 1)})


def test_a_damaged_state_is_left_and_the_trial_starts_anew(tmp_path, capsys):
    path = tmp_path / "state.pt"
    path.write_bytes(b"PK\x03\x04 half a file")
    clip = clip_of(saved=SavedState(path))
    assert clip.resume() is None
    assert "is damaged" in capsys.readouterr().err


def test_a_state_that_would_run_code_is_left_without_the_advice_to_run_it(tmp_path, capsys):
    path = tmp_path / "state.pt"
    torch.save({"state": nn.Linear(1, 1)}, path)
    assert clip_of(saved=SavedState(path)).resume() is None
    said = capsys.readouterr().err
    assert "(it does not hold plain values); the trial starts anew." in said and "weights" not in said


# Alone


def test_a_script_alone_reads_its_rule_and_leaves_other_arguments_to_the_script(capsys):
    clip = clip_from_args(["--clip", "norm(per=tensor)@0.5", "--seed", "7", "--lr", "0.1"])
    assert (clip.arm, clip.seed) == ("norm(per=tensor)@0.5", 7)
    model, optimizer, x = small()
    clip.attach(model, optimizer)
    loss = loss_of(model, x)
    loss.backward()
    clip.step(loss * torch.inf)  # it goes on, as it would without clipbench
    assert clip.report({"val/loss": torch.tensor(0.25)}) is False
    assert capsys.readouterr().out == "step 1: val/loss 0.25\n"


def test_other_arguments_stay_for_a_parser_of_the_script(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--lr", "0.1", "--clip", "norm@1.0", "--seed=3", "data"])
    assert (clip_from_args().arm, sys.argv) == ("norm@1.0", ["train.py", "--lr", "0.1", "data"])


def test_a_script_alone_says_what_is_wrong_with_its_rule(capsys):
    with pytest.raises(SystemExit) as ended:
        clip_from_args(["--clip", "nrm@1.0"])
    assert ended.value.code == 2
    assert "Did you mean `norm`?" in capsys.readouterr().err


def test_a_forked_process_does_not_train():
    clip, (model, optimizer, x) = clip_of(), small()
    clip.attach(model, optimizer)
    loss = loss_of(model, x)
    loss.backward()
    if (child := os.fork()) == 0:
        try:
            clip.step(loss)
        except ScriptError as error:
            os._exit(17 if "has forked" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
