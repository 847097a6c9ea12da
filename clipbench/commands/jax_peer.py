"""JAX as `bench` compares it: many models by `vmap`, many steps by `scan`, compiled, one process pinned to each core.

It trains the networks of `mlp`, `cnn` and `rnn` as `bench` does, clipped by norm, with momentum and without telemetry.
Convolutions are sums over patches, since `vmap` of JAX's own convolution takes many times as long on a CPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import time
from typing import Any

from clipbench.errors import ClipbenchError

# Models trained together; more do not stay in the cache of a core. The fastest counts.
TOGETHER = {"mlp": (8, 16), "cnn": (4, 8), "rnn": (8, 16)}
STEPS = {"mlp": 20, "cnn": 5, "rnn": 5}  # in one call
SECONDS = 2.0


def is_installed() -> bool:
    return importlib.util.find_spec("jax") is not None


class JaxPeer:
    """Processes that measure JAX's speed at a model, whenever they are asked."""

    def __init__(self, model: str) -> None:
        self._pairs = [[_started(model, lanes, core) for core in _cores()] for lanes in TOGETHER[model]]
        for process in (each for pair in self._pairs for each in pair):
            _answer(process)  # it has compiled

    def steps_per_second(self) -> float:
        """Measure the steps of all models per second, with the best number of models."""
        speeds = []
        for pair in self._pairs:
            for process in pair:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            speeds.append(sum(float(_answer(process)) for process in pair))
        return max(speeds)

    def close(self) -> None:
        for process in (each for pair in self._pairs for each in pair):
            process.terminate()
            process.communicate()  # closes its pipes


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _started(model: str, lanes: int, core: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __name__, model, str(lanes), str(core)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    if not line:
        raise ClipbenchError(f"JAX failed: {process.stderr.read()[-500:]}")
    return line


def main(model: str, lanes: int, core: int) -> None:
    """Compile, then measure for each line of the standard input."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})  # JAX has as many threads as there are cores, whatever OMP_NUM_THREADS says
    step, state = _program(model, lanes)
    for _ in range(2):
        state = step(state)
    _say("ready")
    for _ in sys.stdin:
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            state = step(state)
            done += STEPS[model] * lanes
        _say(str(done / (time.perf_counter() - start)))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _program(model: str, lanes: int) -> tuple[Any, Any]:
    """Return a function that takes some steps of all models and waits for them, and the initial state."""
    import numpy as np

    jax: Any = importlib.import_module("jax")
    jnp: Any = importlib.import_module("jax.numpy")
    batch = 20 if model == "rnn" else 64
    draw = np.random.default_rng(0)
    if model == "rnn":  # six symbols, twenty steps, four classes
        inputs = jnp.asarray(np.eye(6, dtype=np.float32)[draw.integers(0, 6, (2048, 20))])
        targets = jnp.asarray(draw.integers(0, 4, 2048))
    else:  # as many images as the training part of `digits`, of the same size
        inputs = jnp.asarray(draw.random((1150, 64), dtype=np.float32))
        targets = jnp.asarray(draw.integers(0, 10, 1150))
    shapes = {
        "mlp": {"w1": (64, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)},
        "rnn": {"into": (6, 50), "on": (50, 50), "b1": (50,), "w2": (50, 4), "b2": (4,)},
        "cnn": {
            **{"c1": (16, 1, 3, 3), "d1": (16,), "c2": (32, 16, 3, 3), "d2": (32,)},
            **{"w1": (128, 64), "b1": (64,), "w2": (64, 10), "b2": (10,)},
        },
    }[model]

    def convolved(images: Any, weight: Any, bias: Any) -> Any:
        padded = jnp.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
        size = images.shape[2]
        places = [padded[:, :, i : i + size, j : j + size] for i in range(3) for j in range(3)]
        patches = jnp.stack(places, -1)
        return jnp.einsum("bcxyk,ock->boxy", patches, weight.reshape(*weight.shape[:2], 9)) + bias[None, :, None, None]

    def pooled(images: Any) -> Any:
        count, channels, height, width = images.shape
        return images.reshape(count, channels, height // 2, 2, width // 2, 2).max((3, 5))

    def outputs(params: Any, x: Any) -> Any:
        if model == "rnn":
            given = (x @ params["into"] + params["b1"]).transpose(1, 0, 2)
            first = jnp.zeros((batch, 50))
            x, _ = jax.lax.scan(lambda h, now: (jnp.tanh(now + h @ params["on"]), None), first, given, unroll=4)
            return x @ params["w2"] + params["b2"]
        if model == "cnn":
            x = pooled(jax.nn.relu(convolved(x.reshape(-1, 1, 8, 8), params["c1"], params["d1"])))
            x = pooled(jax.nn.relu(convolved(x, params["c2"], params["d2"]))).reshape(batch, -1)
        return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]

    def loss(params: Any, x: Any, y: Any) -> Any:
        logits = jax.nn.log_softmax(outputs(params, x))
        return -jnp.take_along_axis(logits, y[:, None], 1).mean()

    def one(state: Any, chosen: Any) -> tuple[Any, Any]:
        params, momentum = state
        value, grads = jax.value_and_grad(loss)(params, inputs[chosen], targets[chosen])
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
        factor = jnp.minimum(1.0, 1.0 / (norm + 1e-6))
        momentum = jax.tree.map(lambda m, g: 0.9 * m + factor * g, momentum, grads)
        return (jax.tree.map(lambda p, m: p - 0.05 * m, params, momentum), momentum), (value, norm)

    def steps(state: Any, key: Any) -> Any:
        def body(state: Any, key: Any) -> Any:
            chosen = jax.random.randint(key, (batch,), 0, len(inputs))
            return jax.vmap(one, in_axes=(0, None))(state, chosen)

        return jax.lax.scan(body, state, jax.random.split(key, STEPS[model]))

    params = {
        name: jnp.asarray(0.1 * draw.standard_normal((lanes, *shape)), "float32") for name, shape in shapes.items()
    }
    key = jax.random.PRNGKey(0)
    compiled, wait = jax.jit(steps), jax.block_until_ready
    return lambda state: wait(compiled(state, key))[0], (params, jax.tree.map(jnp.zeros_like, params))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
