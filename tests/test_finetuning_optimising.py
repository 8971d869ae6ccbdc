"""Every trained parameter has its own share of the learning rate, just once, and only matrices decay."""

from __future__ import annotations

import pytest
import torch
from tiny_networks import BODY, tiny_network

from featx.finetuning import TuningSettings, make_head
from featx.finetuning.optimising import make_optimizer, make_scheduler
from featx.finetuning.trained_parts import rate_factors


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_every_part_keeps_its_share_of_the_rate(schedule):
    """At every step, warm-up included, later and earlier modules have their factors of the head's rate, just once."""
    settings = TuningSettings(regime="total", lr_scale=(0.1, 0.01), schedule=schedule, epochs=3, optimizer="sgd")
    network = tiny_network(settings)
    optimizer = make_optimizer(network, settings)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    late = {name for name, factor in rate_factors(BODY, (0.1, 0.01)).items() if factor == 0.1}
    assert late == set(BODY[4:])

    def check() -> None:
        head = optimizer.param_groups[0]["lr"]
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = names.pop(id(parameter)) if id(parameter) in names else seen[id(parameter)]
                seen[id(parameter)] = name
                owner = name.removeprefix("_taps.module.").rpartition(".")[0]
                factor = 1.0 if name.startswith("head.") else 0.1 if owner in late else 0.01
                assert group["lr"] == pytest.approx(head * factor, rel=1e-9), name

    seen: dict[int, str] = {}
    check()  # without a schedule, as in the overfit check
    assert set(names.values()) == {"_taps.module.classifier.weight", "_taps.module.classifier.bias"}
    scheduler = make_scheduler(optimizer, settings, 4)
    for step in range(12):
        scheduler.step_update(step)
        check()


def test_biases_and_norms_do_not_decay():
    """Weight decay is for matrices and kernels; every trained parameter is in one group, and no other."""
    settings = TuningSettings(last=1, weight_decay=0.3)
    network = tiny_network(settings)
    found = {}
    names = {id(parameter): name.removeprefix("_taps.module.") for name, parameter in network.named_parameters()}
    for group in make_optimizer(network, settings).param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = group["weight_decay"]
    decays = {names[key]: decay for key, decay in found.items()}
    kernels = {"head.linear.weight", "stages.2.0.weight", "last.weight"}
    vectors = {"head.linear.bias", "stages.2.1.weight", "stages.2.1.bias", "last.bias"}
    assert decays == dict.fromkeys(kernels, 0.3) | dict.fromkeys(vectors, 0.0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("adagrad", torch.optim.Adagrad),
    ],
)
def test_optimizers_are_torchs_own(name, kind):
    """Each name is the class it says; SGD has Nesterov's momentum of 0.9."""
    settings = TuningSettings(optimizer=name)
    optimizer = make_optimizer(make_head(5, 3, settings), settings)
    assert isinstance(optimizer, kind)
    assert optimizer.param_groups[0]["lr"] == {"sgd": 0.01, "adam": 1e-3, "adamw": 1e-3, "adagrad": 0.01}[name]
    if name == "sgd":
        assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.9, True)
