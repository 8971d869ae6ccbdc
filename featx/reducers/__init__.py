"""What happens to features before a classifier sees them: scalers and reducers, by name.

All are ordinary scikit-learn transformers: they are fitted inside a fold, never on all rows. ``scalers`` and
``named_reducers`` turn names into transformers; ``layerwise`` scales layers that stand side by side. ``streaming_pca``
is an exact PCA in one pass, built on ``moments``; ``product_quantizer`` keeps rows as short codes, trained by
``codebook_training``. ``row_blocks`` reads rows that may be too many for memory.
"""

from featx.reducers.layerwise import LayerwiseScaler
from featx.reducers.named_reducers import make_reducer
from featx.reducers.product_quantizer import ProductQuantizer
from featx.reducers.scalers import SCALERS, SignedSquareRoot, make_scaler
from featx.reducers.streaming_pca import StreamingPCA

__all__ = [
    "SCALERS",
    "LayerwiseScaler",
    "ProductQuantizer",
    "SignedSquareRoot",
    "StreamingPCA",
    "make_reducer",
    "make_scaler",
]
