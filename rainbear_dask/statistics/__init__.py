"""Statistics of chunks: the form of their files, their places, and the chunks that they still describe."""
