"""One job: its request, how it is prepared and run, and the JSON of its result."""
