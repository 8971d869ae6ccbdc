"""Exact nearest images by cosine similarity: build an index of feature vectors, save it, search it."""

from featx.retrieval.index import ImageIndex
from featx.retrieval.search import SearchResult

__all__ = ["ImageIndex", "SearchResult"]
