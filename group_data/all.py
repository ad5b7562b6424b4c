"""What differs from the defaults on every host; docs/settings.md lists every key."""
