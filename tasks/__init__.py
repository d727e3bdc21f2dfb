"""The Markov games. Installed as ``dima_isaac.tasks``; nothing in the library imports them."""
