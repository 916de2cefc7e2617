"""Answer as the Open Responses specification says."""
