"""Running graphs: on which device, in which session, and in which order."""
