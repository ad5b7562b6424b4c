"""The hosts of capabilities that have one of their own, in the fleets that all tests share."""
