"""Tasks that score a model under a cache; see `registry.TASKS`."""
