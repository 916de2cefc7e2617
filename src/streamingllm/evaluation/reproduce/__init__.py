"""Tables and figures of the paper, made again on any model; see `registry.EXHIBITS`."""
