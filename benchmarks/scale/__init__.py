"""A simulation of millions of sessions over a thousand replicas."""
