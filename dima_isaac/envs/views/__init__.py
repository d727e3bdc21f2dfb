"""The vectorised environment as other libraries expect one. Each view imports its library only when it is used."""
