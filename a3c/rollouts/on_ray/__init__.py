"""Workers as Ray's actors: on this machine, or on all machines of a cluster."""
