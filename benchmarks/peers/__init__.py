"""Our stream beside its peers: the same model, cache and threads, in turn, in one run."""
