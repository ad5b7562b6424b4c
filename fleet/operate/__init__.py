"""What an operator asks of a fleet: a module for each command, built on what capabilities tell."""
