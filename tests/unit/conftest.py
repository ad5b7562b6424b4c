from tests.fleets import own_secrets

__all__ = ["own_secrets"]
