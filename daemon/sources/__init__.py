"""Reasons to touch a file. Each source only feeds the inbox; none calls the pipeline."""
