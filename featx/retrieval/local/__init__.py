"""Places of pictures: what is seen where, as short codes, and which candidate shows the same in the same places."""
