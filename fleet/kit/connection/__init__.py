"""How a host is reached: one way for deploys, checks and commands, whatever the connector."""
