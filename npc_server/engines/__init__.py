"""The language models, and the files that they are made of."""
