"""What FAISS keeps of vectors to propose candidates."""

from featx.retrieval.structures.structure import SearchParameters, Structure, TooSlowError

__all__ = ["SearchParameters", "Structure", "TooSlowError"]
