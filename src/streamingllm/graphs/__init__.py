"""One decode step of a model as a compiled graph, without Python in it."""
