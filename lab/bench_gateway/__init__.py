"""What the gateway costs, and what its choice of servers gains: `make bench-gateway`."""
