"""Train tiny decoders that differ in one thing, and let them read far past their trained length."""
