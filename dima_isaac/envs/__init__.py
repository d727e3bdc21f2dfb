"""Markov games on an engine: the task protocol, the vectorised environment and its views."""
