"""Names that the whole product speaks of; importing them loads no network library."""

DEFAULT_MODEL = "tf_efficientnet_lite0"
PENULTIMATE = "penultimate"
LOGITS = "logits"
