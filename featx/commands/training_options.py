"""Options of the verbs that train a network, and what they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.commands.options import add_device_arguments, check_row_arguments
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from featx.finetuning import TuningSettings
    from featx.workflows.tuning_job import FinetuneSettings

_SVM = "svm"  # a head that is fitted on tuned features
# What is taken where nothing is given. Those of `lr_scale` and `augment` depend on the regime.
_LR_SCALE = {"total": (0.1, 0.01)}
_OTHER_LR_SCALE = (0.1,)
_AUGMENT = {"partial": ("flip", "crop"), "total": ("flip", "crop")}


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which network: ``--model --weights --size``."""
    group = parser.add_argument_group("which network")
    group.add_argument(
        "--model", metavar="NAME", help="network (default: tf_efficientnet_lite0, or that of the store given)"
    )
    group.add_argument("--weights", metavar="FILE", help="weights file, or random:SEED (default: looked for)")
    group.add_argument(
        "--size", type=int, metavar="N",
        help="pictures of N x N pixels, which is faster where it is small (default: the network's own size)",
    )  # fmt: skip


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how it is trained; ``--regime`` is not among them."""
    group = parser.add_argument_group("how it is trained")
    group.add_argument("--epochs", type=int, default=20, metavar="N", help="at the most (default: 20)")
    group.add_argument("--batch-size", type=int, default=32, metavar="N", help="images a step (default: 32)")
    group.add_argument("--optimizer", default="adamw", metavar="NAME", help="adamw, adam, sgd or adagrad")
    group.add_argument(
        "--lr", type=float, metavar="X",
        help="learning rate of the head (default: 0.001 for adam and adamw, 0.01 for sgd and adagrad)",
    )  # fmt: skip
    group.add_argument(
        "--lr-scale", metavar="LIST",
        help="factors of it for the rest of the network, from its last layers to its first (default: 0.1; where"
        " everything is trained 0.1,0.01; from random weights 1)",
    )  # fmt: skip
    group.add_argument("--schedule", default="cosine", metavar="NAME", help="cosine, step or constant")
    group.add_argument(
        "--warmup", type=float, default=1.0, metavar="N", help="epochs of rising rate (default: 1; at most half of all)"
    )
    group.add_argument("--weight-decay", type=float, default=0.01, metavar="X", help="(default: 0.01)")
    group.add_argument(
        "--balanced", action="store_true",
        help="weigh classes by the inverse of their size, in learning and in choosing the epoch",
    )  # fmt: skip
    group.add_argument("--dropout", type=float, default=0.2, metavar="X", help="before the last layer (default: 0.2)")
    group.add_argument("--label-smoothing", type=float, default=0.1, metavar="X", help="(default: 0.1)")
    group.add_argument(
        "--augment", metavar="LIST",
        help="none, or of flip,vflip,crop,rotation,colour,noise,mixup (default: flip,crop; none for minimum, whose"
        " features are then computed only once)",
    )  # fmt: skip
    group.add_argument(
        "--patience", type=int, default=5, metavar="N", help="stop after N epochs without gain; 0 never (default: 5)"
    )
    group.add_argument("--ema", type=float, metavar="DECAY", help="keep a moving average of the weights, such as 0.99")
    group.add_argument("--precision", default="f32", metavar="NAME", help="f32; bf16; or, on CUDA, f16 (default: f32)")
    group.add_argument(
        "--norm-statistics", default="frozen", metavar="NAME",
        help="means and variances of batch normalisations: frozen or trained (default: frozen; from random weights"
        " they are always trained)",
    )  # fmt: skip
    group.add_argument(
        "--no-head-start", action="store_true",
        help="with partial and total: begin with a head that knows nothing, not with one trained on frozen features",
    )  # fmt: skip
    group.add_argument("--no-check", action="store_true", help="do not try first whether 16 images can be learned")
    add_device_arguments(group)


def around_settings(values: dict[str, Any], **others: Any) -> FinetuneSettings:
    """Return what is done around each training; its own settings are those of `tuning_settings`.

    Parameters
    ----------
    values : dict
        The options of `add_training_arguments`, `add_stage_arguments` and `featx.commands.options.add_split_arguments`.
    **others
        Of `FinetuneSettings`.

    Raises
    ------
    UsageError
        A value is out of its range.
    """
    from featx.workflows.tuning_job import FinetuneSettings

    check_row_arguments(seed=values["seed"], held_out=values["held_out"], jobs=None)
    return FinetuneSettings(
        classifier="svm" if values["head"] == _SVM else "softmax",
        held_out=values["held_out"],
        group_column=values["group_column"],
        allow_duplicates=values["allow_duplicates"],
        check=not values["no_check"],
        **others,
    )


def tuning_settings(regime: str, values: dict[str, Any], *, from_random: bool = False) -> TuningSettings:
    """Return the settings that the options of `add_training_arguments` and `add_stage_arguments` stand for.

    Parameters
    ----------
    regime : str
        See `featx.finetuning.REGIMES`.
    values : dict
        The options by name, and ``seed``.
    from_random : bool
        The network has random weights: there is nothing to be careful with.

    Raises
    ------
    UsageError
        A value is not among those allowed.
    """
    from featx.finetuning import TuningSettings

    lr_scale, augment = values["lr_scale"], values["augment"]
    usual_lr_scale = (1.0,) if from_random else _LR_SCALE.get(regime, _OTHER_LR_SCALE)
    return TuningSettings(
        regime=regime,
        head="linear" if values["head"] == _SVM else values["head"],
        last=values["last"],
        unfreeze=_unfrozen_names(values["unfreeze"]),
        epochs=values["epochs"],
        batch_size=values["batch_size"],
        optimizer=values["optimizer"],
        learning_rate=values["lr"],
        lr_scale=usual_lr_scale if lr_scale is None else _numbers(lr_scale),
        schedule=values["schedule"],
        warmup_epochs=min(values["warmup"], values["epochs"] / 2),
        weight_decay=values["weight_decay"],
        dropout=values["dropout"],
        label_smoothing=values["label_smoothing"],
        augment=_AUGMENT.get(regime, ()) if augment is None else _augmentations(augment),
        patience=values["patience"],
        ema=values["ema"],
        precision=values["precision"],
        norm_statistics="trained" if from_random else values["norm_statistics"],
        class_weight="balanced" if values["balanced"] else None,
        head_start=not values["no_head_start"],
        seed=values["seed"],
    )


def add_stage_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``partial`` trains, ``--last`` or ``--unfreeze``, and what stands on the network: ``--head``."""
    stages = parser.add_mutually_exclusive_group()
    stages.add_argument("--last", type=int, metavar="K", help="with partial: the last K stages (default: 2)")
    stages.add_argument(
        "--unfreeze", metavar="LIST", help="with partial: these modules alone, such as blocks.5,blocks.6"
    )
    parser.add_argument(
        "--head", default="linear", metavar="NAME",
        help="linear: softmax on the pooled features; dense: 1024 more in between; svm: linear, and when the network is"
        " tuned a linear SVM on its features (default: linear)",
    )  # fmt: skip


def _unfrozen_names(text: str | None) -> tuple[str, ...]:
    names = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if text is not None and not names:
        raise UsageError("--unfreeze names nothing; give modules such as blocks.5,blocks.6, or leave it out")
    return names


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--lr-scale {text} is no list of numbers; give factors such as 0.1,0.01") from error


def _augmentations(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    return () if names == ("none",) else names
