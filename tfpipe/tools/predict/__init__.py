"""`tfpipe predict`: labels texts and files with any artifact of a run, or by a server."""
