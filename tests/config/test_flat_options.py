"""The options of an experiment as flat names and texts."""

import pytest
import yaml

from clipbench.config import flattened


@pytest.mark.parametrize(
    ("document", "options"),
    [
        ({"data": {"name": "digits", "split": {"val": 0.2}}}, {"data": "digits", "data.split.val": "0.2"}),
        ({"seeds": 8, "train": {"epochs": [5, 10]}}, {"seeds": "8", "train.epochs": "[5, 10]"}),
        (
            {"clip": [{"name": "none"}, {"name": "norm", "threshold": {"log": [0.1, 1.0]}}]},
            {"clip": "none, norm", "clip.norm.threshold.log": "[0.1, 1.0]"},
        ),
        (
            {"clip": [{"name": "norm", "threshold": 1.0}, {"name": "norm", "threshold": 2.0}]},
            {"clip.1": "{name: norm, threshold: 1.0}", "clip.2": "{name: norm, threshold: 2.0}"},
        ),
        ({"train": {"metrics": ["accuracy", {"name": "top", "k": 3}]}}, {"train.metrics": "[accuracy, {name: top, k: 3}]"}),
    ],
)  # fmt: skip
def test_options_have_flat_names(document, options):
    assert flattened(yaml.safe_dump(document, sort_keys=False)) == options
