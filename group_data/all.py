"""Settings of every host in every inventory that differ from the defaults; docs/settings.md lists all."""
