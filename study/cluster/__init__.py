"""Studies on Ray: addresses, sessions, nodes, jobs, Kubernetes, and object stores."""
