"""Connects studies to Ray: addresses, sessions, nodes, jobs, Kubernetes, and object stores."""
