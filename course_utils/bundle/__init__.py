"""The offline bundle: one folder from which a machine without a network is ready in one command."""
