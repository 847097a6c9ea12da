"""REINFORCE on CartPole: a policy of one hidden layer, and returns normalized in each episode."""

import math
import random

import torch
from torch import nn

import clipbench


class CartPole:
    """The pole on a cart of Barto, Sutton and Anderson (1983), for at most 200 steps as in Gym's CartPole-v0."""

    def __init__(self, draw):
        self.draw = draw

    def reset(self):
        self.state, self.steps = [self.draw.uniform(-0.05, 0.05) for _ in range(4)], 0
        return self.state

    def step(self, action):
        x, speed, angle, spin = self.state
        force, cos, sin = (10.0 if action else -10.0), math.cos(angle), math.sin(angle)
        push = (force + 0.05 * spin**2 * sin) / 1.1
        turn = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
        thrust = push - 0.05 * turn * cos / 1.1
        self.state = [x + 0.02 * speed, speed + 0.02 * thrust, angle + 0.02 * spin, spin + 0.02 * turn]
        self.steps += 1
        return self.state, abs(self.state[0]) > 2.4 or abs(self.state[2]) > math.radians(12) or self.steps == 200


def episode(policy, world):
    """Return the log probabilities of the actions of an episode; each step but the last earns 1."""
    state, done, chosen = world.reset(), False, []
    while not done:
        law = torch.distributions.Categorical(logits=policy(torch.tensor(state)))
        action = law.sample()
        chosen.append(law.log_prob(action))
        state, done = world.step(action.item())
    return torch.stack(chosen)


def loss_of(chosen, gamma=0.99):
    """The loss whose gradient is that of REINFORCE."""
    returns, total = [], 0.0
    for _ in chosen:  # backwards: the last action earns the least
        total = 1.0 + gamma * total
        returns.insert(0, total)
    returns = torch.tensor(returns)
    return -(chosen * (returns - returns.mean()) / (returns.std(correction=0) + 1e-6)).sum()


@torch.no_grad()
def mean_return(policy, episodes, seed):
    """The mean length of episodes in which the policy takes its likeliest action."""
    world, lengths = CartPole(random.Random(seed)), []
    for _ in range(episodes):
        state, done = world.reset(), False
        while not done:
            state, done = world.step(policy(torch.tensor(state)).argmax().item())
        lengths.append(world.steps)
    return sum(lengths) / episodes


def main(clip, seed, lr=0.01, episodes=90):
    clip.seed_all()
    policy = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
    clip.attach(policy, optimizer, steps=episodes)
    world = CartPole(random.Random(seed))
    for number in range(1, episodes + 1):
        loss = loss_of(episode(policy, world))
        loss.backward()
        clip.apply()  # in the place of clip_grad_norm_
        optimizer.step()
        clip.commit(loss)  # in the place of optimizer.zero_grad()
        if number % (episodes // 6) == 0 and clip.report({"val/return": mean_return(policy, 5, seed=1)}):
            return None
    return {"test/return": mean_return(policy, 20, seed=2)}


if __name__ == "__main__":
    clip = clipbench.clip_from_args()
    print(main(clip, clip.seed))
